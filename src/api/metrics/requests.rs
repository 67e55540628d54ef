//! Requests by route, counted in places that are made once: a request costs two look-ups and a few additions.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::Method;

use crate::metrics::text::{Kind, Page};
use crate::metrics::{Counter, Histogram, Unit};

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];
/// What stands for everything that the document does not have.
const OTHER: &str = "other";

/// One method of one route.
pub struct Route {
    method: &'static str,
    route: String,
    classes: [Counter; 5],
    took: Histogram,
}

/// Every route of the document, and one place for the rest.
pub struct Requests {
    known: HashMap<String, Vec<Route>>,
    other: Route,
}

impl Route {
    fn new(method: &'static str, route: &str) -> Self {
        Self { method, route: route.to_owned(), classes: Default::default(), took: Histogram::new(Unit::Seconds) }
    }

    /// A request was answered.
    pub fn answered(&self, status: u16, took: Duration) {
        if let Some(class) = self.classes.get(usize::from(status / 100).saturating_sub(1)) {
            class.inc();
        }
        self.took.observe(took);
    }
}

impl Requests {
    /// One place for each operation of the document.
    pub fn of(document: &utoipa::openapi::OpenApi) -> Self {
        let mut known: HashMap<String, Vec<Route>> = HashMap::new();
        for (path, item) in &document.paths.paths {
            let operations = [
                ("GET", &item.get),
                ("PUT", &item.put),
                ("POST", &item.post),
                ("PATCH", &item.patch),
                ("DELETE", &item.delete),
            ];
            let there = operations.into_iter().filter(|(_, operation)| operation.is_some());
            known.insert(path.clone(), there.map(|(method, _)| Route::new(method, path)).collect());
        }
        Self { known, other: Route::new(OTHER, OTHER) }
    }

    /// Where requests with this method to this route are counted.
    pub fn place(&self, method: &Method, route: &str) -> &Route {
        let found = self.known.get(route).and_then(|methods| methods.iter().find(|r| r.method == method.as_str()));
        found.unwrap_or(&self.other)
    }

    /// Routes that were asked for, in a fixed order.
    fn used(&self) -> Vec<&Route> {
        let all = self.known.values().flatten().chain([&self.other]);
        let mut used: Vec<_> = all.filter(|route| route.took.count() > 0).collect();
        used.sort_unstable_by_key(|route| (&route.route, route.method));
        used
    }

    /// Writes the counts.
    pub fn write(&self, page: &mut Page) {
        let used = self.used();
        let name = "helve_http_requests_total";
        page.family(name, Kind::Counter, "Requests that were answered, by route and class of status.");
        for route in &used {
            for (class, count) in CLASSES.iter().zip(&route.classes).filter(|(_, count)| count.get() > 0) {
                let labels = [("method", route.method), ("route", route.route.as_str()), ("status", class)];
                page.sample(&labels, count.get());
            }
        }
        let name = "helve_http_request_seconds";
        page.family(name, Kind::Histogram, "Time to the head of the answer, waits that were asked for included.");
        for route in &used {
            page.histogram(&[("method", route.method), ("route", &route.route)], &route.took);
        }
    }
}
