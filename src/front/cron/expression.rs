//! Cron expressions as Cloudflare has them: minute, hour, day of the month, month, day of the week (1 is Sunday), in UTC;
//! with `*`, lists, ranges, steps, names, and `L`, `W`, `#` for days.
//!
//! Pure: time comes in as a number.

/// When something is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Expression {
    minutes: u64,
    hours: u64,
    months: u64,
    days: Vec<Day>,
    weekdays: Vec<Weekday>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Day {
    Any,
    /// Bit by bit.
    These(u64),
    /// The last, less so many.
    Last(i64),
    /// The weekday nearest to it, in the same month.
    NearestWeekday(i64),
    LastWeekday,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Weekday {
    Any,
    These(u64),
    /// The last such day of the month.
    Last(i64),
    /// The n-th.
    Nth(i64, i64),
}

const MONTHS: [&str; 12] = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

impl Expression {
    /// Reads an expression; `None` if it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let fields: Vec<String> = text.split_whitespace().map(str::to_ascii_uppercase).collect();
        let [minutes, hours, days, months, weekdays] = &fields[..] else { return None };
        Some(Self {
            minutes: set(minutes, 0, 59, &[])?,
            hours: set(hours, 0, 23, &[])?,
            months: set(months, 1, 12, &MONTHS)?,
            days: days.split(',').map(day).collect::<Option<_>>()?,
            weekdays: weekdays.split(',').map(weekday).collect::<Option<_>>()?,
        })
    }

    /// Whether it is due in the minute that begins then, in Unix minutes.
    pub(super) fn is_due(&self, minute: u64) -> bool {
        let minute = i64::try_from(minute).unwrap_or(0);
        let (day_number, of_day) = (minute.div_euclid(1440), minute.rem_euclid(1440));
        let (year, month, day) = civil(day_number);
        let last = last_day(year, month);
        let weekday_of = |day: i64| (days_from_civil(year, month, day) + 4).rem_euclid(7) + 1;
        let is_workday = |day: i64| (2..=6).contains(&weekday_of(day));
        let is_day = |rule: &Day| match rule {
            Day::Any => true,
            Day::These(days) => has(*days, day),
            Day::Last(less) => day == last - less,
            Day::NearestWeekday(near) => day == nearest(*near.min(&last), last, is_workday),
            Day::LastWeekday => Some(day) == (1..=last).rev().find(|day| is_workday(*day)),
        };
        let is_weekday = |rule: &Weekday| match rule {
            Weekday::Any => true,
            Weekday::These(days) => has(*days, weekday_of(day)),
            Weekday::Last(weekday) => weekday_of(day) == *weekday && day + 7 > last,
            Weekday::Nth(weekday, nth) => weekday_of(day) == *weekday && (day - 1) / 7 + 1 == *nth,
        };
        // As crond has it: of two restrictions of the day either is enough.
        let by_day = self.days.iter().any(is_day);
        let by_weekday = self.weekdays.iter().any(is_weekday);
        let is_that_day = match (self.days.contains(&Day::Any), self.weekdays.contains(&Weekday::Any)) {
            (false, false) => by_day || by_weekday,
            _ => by_day && by_weekday,
        };
        has(self.minutes, of_day % 60) && has(self.hours, of_day / 60) && has(self.months, month) && is_that_day
    }
}

fn has(set: u64, number: i64) -> bool {
    u32::try_from(number).is_ok_and(|number| set.checked_shr(number).is_some_and(|rest| rest & 1 == 1))
}

fn number(text: &str, min: i64, max: i64, names: &[&str]) -> Option<i64> {
    let by_name = names.iter().position(|name| *name == text).and_then(|at| i64::try_from(at).ok()).map(|at| at + 1);
    by_name.or_else(|| text.parse().ok()).filter(|number| (min..=max).contains(number))
}

/// `*`, `a`, `a-b`, `a,b`, each with `/step`; bit by bit.
fn set(text: &str, min: i64, max: i64, names: &[&str]) -> Option<u64> {
    let mut set = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step.parse::<i64>().ok().filter(|step| *step > 0)?)),
            None => (part, None),
        };
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (min, max),
            (_, Some((from, to))) => (number(from, min, max, names)?, number(to, min, max, names)?),
            (one, None) => {
                let one = number(one, min, max, names)?;
                (one, if step.is_some() { max } else { one })
            }
        };
        let width = max - min + 1;
        // `FRI-MON` goes over the end.
        let len = if from <= to { to - from } else { to + width - from };
        let mut at = 0;
        while at <= len {
            set |= 1_u64 << (min + (from - min + at) % width);
            at += step.unwrap_or(1);
        }
    }
    Some(set)
}

fn day(text: &str) -> Option<Day> {
    match text {
        "*" | "?" => Some(Day::Any),
        "L" => Some(Day::Last(0)),
        "LW" | "WL" => Some(Day::LastWeekday),
        _ => match (text.strip_prefix("L-"), text.strip_suffix('W')) {
            (Some(less), _) => number(less, 0, 30, &[]).map(Day::Last),
            (_, Some(near)) => number(near, 1, 31, &[]).map(Day::NearestWeekday),
            _ => set(text, 1, 31, &[]).map(Day::These),
        },
    }
}

fn weekday(text: &str) -> Option<Weekday> {
    let named = |text: &str| number(text, 1, 7, &WEEKDAYS);
    match (text, text.split_once('#'), text.strip_suffix('L')) {
        ("*" | "?", ..) => Some(Weekday::Any),
        ("L", ..) => Some(Weekday::These(1 << 7)),
        (_, Some((day, nth)), _) => Some(Weekday::Nth(named(day)?, number(nth, 1, 5, &[])?)),
        (_, None, Some(day)) => named(day).map(Weekday::Last),
        _ => set(text, 1, 7, &WEEKDAYS).map(Weekday::These),
    }
}

/// The working day nearest to a day, without leaving the month.
fn nearest(day: i64, last: i64, is_workday: impl Fn(i64) -> bool) -> i64 {
    let near = [day, day - 1, day + 1, day + 2, day - 2];
    near.into_iter().find(|day| (1..=last).contains(day) && is_workday(*day)).unwrap_or(day)
}

fn last_day(year: i64, month: i64) -> i64 {
    let (next_year, next) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
    days_from_civil(next_year, next, 1) - days_from_civil(year, month, 1)
}

/// Days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The inverse.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let (day, month) = (of_year - (153 * shifted + 2) / 5 + 1, (shifted + 2) % 12 + 1);
    (era * 400 + year + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(year: i64, month: i64, day: i64, hour: i64, minute: i64) -> u64 {
        ((days_from_civil(year, month, day) * 24 + hour) * 60 + minute).try_into().expect("after 1970")
    }

    /// Days of a month of 2026 on which an expression is due at noon.
    fn days(expression: &str, month: i64) -> Vec<i64> {
        let expression = Expression::read(&format!("0 12 {expression}")).expect("an expression");
        (1..=last_day(2026, month)).filter(|day| expression.is_due(at(2026, month, *day, 12, 0))).collect()
    }

    #[test]
    fn cloudflares_examples() {
        // 2026-11-01 is a Sunday.
        assert_eq!(days("* * SUN", 11), [1, 8, 15, 22, 29]);
        assert_eq!(days("* * 1", 11), [1, 8, 15, 22, 29]);
        assert_eq!(days("* * MON-FRI", 11).len(), 21);
        assert_eq!(days("* * 2-6", 11), days("* * mon-fri", 11));
        assert_eq!(days("1 * *", 11), [1]);
        assert_eq!(days("* * 6L", 11), [27]);
        assert_eq!(days("* * friL", 11), [27]);
        assert_eq!(days("LW * *", 10), [30]);
        assert_eq!(days("L * *", 2), [28]);
        assert_eq!(days("L-3 * *", 11), [27]);
        assert_eq!(days("1W * *", 11), [2]);
        assert_eq!(days("15W * *", 8), [14]);
        assert_eq!(days("* * MON#2", 11), [9]);
        assert_eq!(days("1 * SUN", 12), [1, 6, 13, 20, 27]);
        assert_eq!(days("*/10 NOV *", 11), [1, 11, 21]);
        assert_eq!(days("* * FRI-MON", 11).len(), 18);
    }

    #[test]
    fn minutes_and_hours() {
        let due = |expression: &str, hour, minute| {
            Expression::read(expression).expect("an expression").is_due(at(2026, 11, 24, hour, minute))
        };
        assert!(due("*/30 * * * *", 3, 30) && !due("*/30 * * * *", 3, 31));
        assert!(due("5,10-12 8-10/2 * * *", 10, 11) && !due("5,10-12 8-10/2 * * *", 9, 11));
        assert!(due("45 * * * *", 0, 45) && due("59 23 * * *", 23, 59));
        for bad in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "a * * * *",
            "*/0 * * * *",
        ] {
            assert!(Expression::read(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn days_and_dates_are_inverse(days in -1_000_000..1_000_000_i64) {
            let (year, month, day) = civil(days);
            prop_assert_eq!(days_from_civil(year, month, day), days);
            prop_assert!((1..=12).contains(&month) && (1..=last_day(year, month)).contains(&day));
        }

        #[test]
        fn hostile_text_is_an_expression_or_none(text in "[-0-9*/,#LWa-z ]{0,30}", minute in 0..1_u64 << 40) {
            if let Some(expression) = Expression::read(&text) {
                expression.is_due(minute);
            }
        }
    }
}
