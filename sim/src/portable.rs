//! Mathematics that gives the same bits on every machine: additions, products, quotients and square roots only, which
//! IEEE 754 defines to the last bit. The functions of a platform's C library may differ in it, and a simulation that
//! differs in one bit differs in everything.

use std::f64::consts::{LN_2, PI};

/// Sine, of any angle in radians within a few turns.
pub fn sin(angle: f64) -> f64 {
    let turns = (angle / (2.0 * PI) + 0.5).floor();
    let mut x = angle - turns * 2.0 * PI;
    // Into the quarter turns around zero, where the series converges fast.
    if x > PI / 2.0 {
        x = PI - x;
    } else if x < -PI / 2.0 {
        x = -PI - x;
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..14 {
        let k = f64::from(2 * n);
        term = -term * x * x / (k * (k + 1.0));
        sum += term;
    }
    sum
}

/// Cosine.
pub fn cos(angle: f64) -> f64 {
    sin(angle + PI / 2.0)
}

/// Arc sine of a number within 0..=1.
pub fn asin(x: f64) -> f64 {
    // asin(x) = 2 asin(x / sqrt(2 + 2 sqrt(1 - x²))): three times brings any argument below 0.2.
    let mut x = x.clamp(0.0, 1.0);
    for _ in 0..3 {
        x /= (2.0 + 2.0 * (1.0 - x * x).sqrt()).sqrt();
    }
    let (mut power, mut sum) = (x, x);
    for n in 1..20 {
        let k = f64::from(2 * n);
        power *= x * x * (k - 1.0) / k;
        sum += power / (k + 1.0);
    }
    8.0 * sum
}

/// Natural logarithm of a positive number.
pub fn ln(x: f64) -> f64 {
    let mut exponent = 0.0;
    let mut m = x;
    while m > 1.5 {
        m /= 2.0;
        exponent += 1.0;
    }
    while m < 0.75 {
        m *= 2.0;
        exponent -= 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1))
    let y = (m - 1.0) / (m + 1.0);
    let (mut power, mut sum) = (y, y);
    for n in 1..20 {
        power *= y * y;
        sum += power / f64::from(2 * n + 1);
    }
    2.0 * sum + exponent * LN_2
}

/// e to the x.
pub fn exp(x: f64) -> f64 {
    let halvings = (x / LN_2).round();
    let y = x - halvings * LN_2;
    let (mut term, mut sum) = (1.0, 1.0);
    for n in 1..20 {
        term *= y / f64::from(n);
        sum += term;
    }
    let mut whole = halvings;
    while whole >= 1.0 {
        sum *= 2.0;
        whole -= 1.0;
    }
    while whole <= -1.0 {
        sum /= 2.0;
        whole += 1.0;
    }
    sum
}

/// A positive number to a power.
pub fn pow(x: f64, power: f64) -> f64 {
    exp(power * ln(x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_good_as_the_library() {
        for step in -400..=400 {
            let x = f64::from(step) / 40.0;
            assert!((sin(x) - x.sin()).abs() < 1e-13, "sin {x}");
            assert!((cos(x) - x.cos()).abs() < 1e-13, "cos {x}");
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "exp {x}");
            let positive = x.abs() + 0.001;
            assert!((ln(positive) - positive.ln()).abs() < 1e-13, "ln {positive}");
            assert!((pow(positive, 0.9) / positive.powf(0.9) - 1.0).abs() < 1e-12, "pow {positive}");
            let ratio = (positive / 11.0).min(1.0);
            assert!((asin(ratio) - ratio.asin()).abs() < 1e-12, "asin {ratio}");
        }
    }
}
