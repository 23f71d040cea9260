//! What is set for a script as a whole, each concern in a register of its own, so that a change of one does not undo a
//! change of another made at the same moment elsewhere: where it is served, when it runs, what clients note about it.

use super::limits::{CRON_LEN_MAX, CRONS_MAX};
use super::rows::{CronRow, CronsRow, PlaceRow, ROW_VERSION, SettingsRow, SubdomainRow, Tag};
use super::versions::check_remarks;
use super::{Script, WorkerError, Workers};
use crate::kv::{AccountId, KvError};

/// Where a script is served beside its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// At its own name.
    pub workers_dev: bool,
    /// Its versions at names of their own.
    pub previews: bool,
}

/// When a script is run by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    /// The expression, in UTC.
    pub cron: String,
    /// Unix milliseconds.
    pub created_ms: u64,
}

impl Workers {
    /// Where a script is served; until it is said, at its own name.
    pub async fn place(&self, script: &Script) -> Result<Place, KvError> {
        let row: Option<PlaceRow> = self.row(&Tag::Place.key(&[&script.life.0])).await?;
        Ok(row.map_or(Place { workers_dev: true, previews: true }, |row| Place {
            workers_dev: row.workers_dev,
            previews: row.previews,
        }))
    }

    /// Says where a script is served.
    pub async fn set_place(&self, script: &Script, place: Place) -> Result<(), KvError> {
        let row = PlaceRow { version: ROW_VERSION, workers_dev: place.workers_dev, previews: place.previews };
        self.set(&Tag::Place.key(&[&script.life.0]), &row).await
    }

    /// When a script is run by itself.
    pub async fn crons(&self, script: &Script) -> Result<Vec<Cron>, KvError> {
        let row: Option<CronsRow> = self.row(&Tag::Crons.key(&[&script.life.0])).await?;
        let cron = |row: CronRow| Cron { cron: row.cron, created_ms: row.created_ms };
        Ok(row.into_iter().flat_map(|row| row.crons).map(cron).collect())
    }

    /// Says when a script is run by itself.
    pub async fn set_crons(&self, script: &Script, crons: Vec<String>) -> Result<Vec<Cron>, WorkerError> {
        if crons.len() > CRONS_MAX {
            return Err(WorkerError::TooManyCrons);
        }
        let before = self.crons(script).await?;
        let mut rows: Vec<CronRow> = Vec::with_capacity(crons.len());
        for cron in crons {
            check_cron(&cron)?;
            if rows.iter().all(|row| row.cron != cron) {
                let known = before.iter().find(|known| known.cron == cron);
                rows.push(CronRow { created_ms: known.map_or(self.kv.now_ms(), |known| known.created_ms), cron });
            }
        }
        self.set(&Tag::Crons.key(&[&script.life.0]), &CronsRow { version: ROW_VERSION, crons: rows }).await?;
        Ok(self.crons(script).await?)
    }

    /// What clients note about a script: JSON text of an object.
    pub async fn script_settings(&self, script: &Script) -> Result<String, KvError> {
        let row: Option<SettingsRow> = self.row(&Tag::Settings.key(&[&script.life.0])).await?;
        Ok(row.map_or_else(|| "{}".into(), |row| row.settings))
    }

    /// Notes something about a script.
    pub async fn set_script_settings(&self, script: &Script, settings: String) -> Result<(), WorkerError> {
        check_remarks(&settings)?;
        let row = SettingsRow { version: ROW_VERSION, settings };
        Ok(self.set(&Tag::Settings.key(&[&script.life.0]), &row).await?)
    }

    /// The label of an account's scripts: unless it chose one, the beginning of its id.
    pub async fn subdomain(&self, account: AccountId) -> Result<String, KvError> {
        let row: Option<SubdomainRow> = self.row(&Tag::Subdomain.key(&[&account.0])).await?;
        Ok(row.map_or_else(|| account.to_string().chars().take(12).collect(), |row| row.subdomain))
    }

    /// Chooses the label of an account's scripts. Two accounts that choose one label at the same moment at two PoPs
    /// both have it; see that they don't.
    pub async fn set_subdomain(&self, account: AccountId, subdomain: &str) -> Result<(), WorkerError> {
        let is_fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_label = (1..=63).contains(&subdomain.len())
            && subdomain.bytes().all(is_fine)
            && !subdomain.starts_with('-')
            && !subdomain.ends_with('-');
        if !is_label {
            return Err(WorkerError::Subdomain(subdomain.chars().take(64).collect()));
        }
        for (other, row) in self.rows::<SubdomainRow>(&Tag::Subdomain.key(&[])).await? {
            if row.subdomain == subdomain && other[..] != account.0 {
                return Err(WorkerError::SubdomainTaken(subdomain.into()));
            }
        }
        let row = SubdomainRow { version: ROW_VERSION, subdomain: subdomain.into() };
        Ok(self.set(&Tag::Subdomain.key(&[&account.0]), &row).await?)
    }
}

/// Five fields of the shape that cron has; what they mean is for whoever runs them.
fn check_cron(cron: &str) -> Result<(), WorkerError> {
    let wrong = |why: &str| WorkerError::Cron { cron: cron.chars().take(CRON_LEN_MAX).collect(), why: why.into() };
    if cron.len() > CRON_LEN_MAX {
        return Err(wrong("it is too long"));
    }
    let fields: Vec<&str> = cron.split_ascii_whitespace().collect();
    if fields.len() != 5 {
        return Err(wrong("it has not five fields: minute, hour, day of the month, month, day of the week"));
    }
    let ranges = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    for (field, (low, high)) in fields.iter().zip(ranges) {
        for item in field.split(',') {
            let (range, step) = item.split_once('/').unwrap_or((item, "1"));
            if step.parse::<u32>().map_or(true, |step| step == 0) {
                return Err(wrong("a step is a number from 1 on"));
            }
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            for end in [first, last] {
                let is_number = end.parse::<u32>().is_ok_and(|number| (low..=high).contains(&number));
                let is_word = !end.is_empty() && end.bytes().all(|byte| byte.is_ascii_alphabetic());
                let is_special = end == "*" || end == "?" || end.ends_with(['L', 'W']) || end.contains('#');
                if !is_number && !is_word && !is_special {
                    return Err(wrong("a field is a number in its range, a name, \"*\", or a list or range of those"));
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_shape_of_a_cron_expression_is_taken() {
        for good in ["* * * * *", "*/5 0-6 1,15 JAN-MAR MON-FRI", "0 0 L * *", "30 7 ? * 6#2", "59 23 31 12 7"] {
            assert!(check_cron(good).is_ok(), "{good}");
        }
        for bad in ["", "* * * *", "60 * * * *", "* * * * * *", "*/0 * * * *", "1-x4 * * * *", "* 24 * * *"] {
            assert!(check_cron(bad).is_err(), "{bad}");
        }
    }
}
