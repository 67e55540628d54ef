//! What repeated measurements show, and how certain it is: means, intervals, differences and slopes.

use super::real;

/// 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom: both sides together leave out 5 %.
const T: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The quantile for any degrees of freedom from 1 on; values between two are rounded to the wider side.
fn student(freedom: f64) -> f64 {
    let whole = freedom.max(1.0).floor();
    let found = T.iter().enumerate().find(|(n, _)| real(*n) + 1.0 >= whole);
    // Beyond the table: 1.96 and the first term of its expansion.
    found.map_or(1.96 + 2.4 / whole, |(_, t)| *t)
}

/// A range that contains the true value with 95 % confidence.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Interval {
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Interval {
    fn around(middle: f64, half: f64) -> Self {
        Self { low: middle - half, high: middle + half }
    }

    pub(super) fn half(self) -> f64 {
        (self.high - self.low) / 2.0
    }

    pub(super) fn holds(self, n: f64) -> bool {
        self.low <= n && n <= self.high
    }
}

/// The mean; 0 if there are no values.
pub(super) fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / real(values.len()) }
}

/// The variance of the population that the values were drawn from; `None` below two values.
fn variance(values: &[f64]) -> Option<f64> {
    let middle = mean(values);
    let squares: f64 = values.iter().map(|v| (v - middle).powi(2)).sum();
    (values.len() >= 2).then(|| squares / (real(values.len()) - 1.0))
}

/// The 95 % interval of the mean; `None` below two values, which have no spread.
pub(super) fn interval(values: &[f64]) -> Option<Interval> {
    let n = real(values.len());
    variance(values).map(|v| Interval::around(mean(values), student(n - 1.0) * (v / n).sqrt()))
}

/// The 95 % interval of `mean(b) - mean(a)`, by Welch: the spreads need not be equal.
pub(super) fn difference(a: &[f64], b: &[f64]) -> Option<Interval> {
    let (va, vb) = (variance(a)? / real(a.len()), variance(b)? / real(b.len()));
    let sum = va + vb;
    let freedom = if sum == 0.0 {
        1.0
    } else {
        sum.powi(2) / (va.powi(2) / (real(a.len()) - 1.0) + vb.powi(2) / (real(b.len()) - 1.0))
    };
    Some(Interval::around(mean(b) - mean(a), student(freedom) * sum.sqrt()))
}

/// A line through points: how much y changes per unit of x.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) struct Slope {
    pub(super) each: f64,
    pub(super) interval: Interval,
}

/// The least-squares slope; `None` below three points, or if all have the same x.
pub(super) fn slope(points: &[(f64, f64)]) -> Option<Slope> {
    let n = real(points.len());
    if points.len() < 3 {
        return None;
    }
    let xs: Vec<_> = points.iter().map(|p| p.0).collect();
    let ys: Vec<_> = points.iter().map(|p| p.1).collect();
    let (mx, my) = (mean(&xs), mean(&ys));
    let sxx: f64 = xs.iter().map(|x| (x - mx).powi(2)).sum();
    if sxx == 0.0 {
        return None;
    }
    let each = points.iter().map(|(x, y)| (x - mx) * (y - my)).sum::<f64>() / sxx;
    let rest: f64 = points.iter().map(|(x, y)| (y - my - each * (x - mx)).powi(2)).sum();
    let error = (rest / (n - 2.0) / sxx).sqrt();
    Some(Slope { each, interval: Interval::around(each, student(n - 2.0) * error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 0.002 * b.abs().max(1.0)
    }

    #[test]
    fn quantiles_fall_towards_the_normal_one() {
        assert!(near(student(1.0), 12.706) && near(student(4.0), 2.776) && near(student(30.0), 2.042));
        assert!(near(student(4.9), 2.776), "rounded to fewer degrees");
        assert!(near(student(60.0), 2.000) && near(student(1e6), 1.960));
    }

    #[test]
    fn an_interval_needs_two_values_and_has_the_textbook_width() {
        assert_eq!(interval(&[]), None);
        assert_eq!(interval(&[3.0]), None);
        // Mean 3, standard deviation 1.5811, t(4) 2.776: half the width is 1.963.
        let found = interval(&[1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
        assert!(near(found.low, 3.0 - 1.963) && near(found.high, 3.0 + 1.963), "{found:?}");
        let same = interval(&[7.0, 7.0, 7.0]).unwrap();
        assert!(same.holds(7.0) && same.half() == 0.0);
    }

    #[test]
    fn a_difference_is_shown_only_beyond_the_spread() {
        let (a, b) = ([10.0, 11.0, 9.0, 10.5, 9.5], [14.0, 15.0, 13.0, 14.5, 13.5]);
        let shown = difference(&a, &b).unwrap();
        // Both variances are 0.625: 8 degrees, 2.306 * 0.5 = 1.153.
        assert!(near(shown.low, 4.0 - 1.153) && near(shown.high, 4.0 + 1.153), "{shown:?}");
        let noisy = [5.0, 21.0, 14.0, 9.0, 20.0];
        assert!(difference(&a, &noisy).unwrap().holds(0.0));
        assert_eq!(difference(&a, &[1.0]), None);
        assert_eq!(difference(&[2.0, 2.0], &[2.0, 2.0]).unwrap(), Interval { low: 0.0, high: 0.0 });
    }

    #[test]
    fn a_slope_has_an_interval_that_noise_widens() {
        let exact: Vec<_> = (0..10).map(|n| (f64::from(n), 5.0 + 2.0 * f64::from(n))).collect();
        let found = slope(&exact).unwrap();
        assert!(near(found.each, 2.0) && found.interval.half() < 1e-9, "{found:?}");
        let flat: Vec<_> = (0..10).map(|n| (f64::from(n), if n % 2 == 0 { 4.0 } else { 6.0 })).collect();
        assert!(slope(&flat).unwrap().interval.holds(0.0));
        // Residuals of (0,0) (1,1) (2,1): slope 0.5, standard error 0.2887, t(1) 12.706.
        let found = slope(&[(0.0, 0.0), (1.0, 1.0), (2.0, 1.0)]).unwrap();
        assert!(near(found.each, 0.5) && near(found.interval.half(), 3.668), "{found:?}");
        assert_eq!(slope(&[(0.0, 1.0), (1.0, 2.0)]), None);
        assert_eq!(slope(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]), None);
    }
}
