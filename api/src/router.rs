//! Endpoints by method and path.
//!
//! One table: each endpoint has the label that its metrics carry and knows which methods it takes. What is not in it does
//! not exist (404) or not with that method (405).

use http::Method;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    // API, answered in JSON by a blocking handler.
    Query,
    QueryRange,
    QueryExemplars,
    FormatQuery,
    ParseQuery,
    Series,
    LabelNames,
    LabelValues,
    Metadata,
    ScrapePools,
    ScrapePoolConfig,
    Targets,
    TargetsMetadata,
    TargetsRelabelSteps,
    Rules,
    Alerts,
    Alertmanagers,
    StatusConfig,
    StatusRuntimeInfo,
    StatusBuildInfo,
    StatusFlags,
    StatusCardinality,
    StatusTsdb,
    StatusTsdbBlocks,
    StatusSelfMetrics,
    StatusWalReplay,
    Features,
    Notifications,
    NotificationsLive,
    Search,
    DeleteSeries,
    CleanTombstones,
    Snapshot,
    Backlog,
    LongtermPreview,
    Options,
    // API, with bodies of their own.
    RemoteWrite,
    RemoteRead,
    OtlpWrite,
    Digest,
    // Beside the API.
    Federate,
    Metrics,
    Version,
    Healthy,
    Ready,
    Reload,
    Quit,
    Page,
    Favicon,
    Debug,
}

/// A matched route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    pub(crate) endpoint: Endpoint,
    /// Label of the metrics.
    pub(crate) handler: &'static str,
    /// The part of the path that stands for a name, escaped.
    pub(crate) name: &'a str,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoute {
    /// Nothing there.
    NotFound,
    /// Not with this method; these would do.
    Method(&'static str),
}

const GET: u8 = 1;
const POST: u8 = 2;
const PUT: u8 = 4;
const HEAD: u8 = 8;

/// Endpoints under `/api/v1`.
const API: &[(&str, Endpoint, u8)] = &[
    ("/api/v1/query", Endpoint::Query, GET | POST),
    ("/api/v1/query_range", Endpoint::QueryRange, GET | POST),
    ("/api/v1/query_exemplars", Endpoint::QueryExemplars, GET | POST),
    ("/api/v1/format_query", Endpoint::FormatQuery, GET | POST),
    ("/api/v1/parse_query", Endpoint::ParseQuery, GET | POST),
    ("/api/v1/labels", Endpoint::LabelNames, GET | POST),
    ("/api/v1/series", Endpoint::Series, GET | POST),
    ("/api/v1/scrape_pools", Endpoint::ScrapePools, GET),
    ("/api/v1/scrape_pools/config", Endpoint::ScrapePoolConfig, GET),
    ("/api/v1/targets", Endpoint::Targets, GET),
    ("/api/v1/targets/metadata", Endpoint::TargetsMetadata, GET),
    ("/api/v1/targets/relabel_steps", Endpoint::TargetsRelabelSteps, GET),
    ("/api/v1/alertmanagers", Endpoint::Alertmanagers, GET),
    ("/api/v1/metadata", Endpoint::Metadata, GET),
    ("/api/v1/status/config", Endpoint::StatusConfig, GET),
    ("/api/v1/status/runtimeinfo", Endpoint::StatusRuntimeInfo, GET),
    ("/api/v1/status/buildinfo", Endpoint::StatusBuildInfo, GET),
    ("/api/v1/status/flags", Endpoint::StatusFlags, GET),
    ("/api/v1/status/cardinality", Endpoint::StatusCardinality, GET),
    ("/api/v1/status/tsdb", Endpoint::StatusTsdb, GET),
    ("/api/v1/status/tsdb/blocks", Endpoint::StatusTsdbBlocks, GET),
    ("/api/v1/status/self_metrics", Endpoint::StatusSelfMetrics, GET),
    ("/api/v1/status/walreplay", Endpoint::StatusWalReplay, GET),
    ("/api/v1/features", Endpoint::Features, GET),
    ("/api/v1/notifications", Endpoint::Notifications, GET),
    ("/api/v1/notifications/live", Endpoint::NotificationsLive, GET),
    ("/api/v1/search/metric_names", Endpoint::Search, GET | POST),
    ("/api/v1/search/label_names", Endpoint::Search, GET | POST),
    ("/api/v1/search/label_values", Endpoint::Search, GET | POST),
    ("/api/v1/alerts", Endpoint::Alerts, GET),
    ("/api/v1/rules", Endpoint::Rules, GET),
    ("/api/v1/read", Endpoint::RemoteRead, POST),
    ("/api/v1/write", Endpoint::RemoteWrite, POST),
    ("/api/v1/otlp/v1/metrics", Endpoint::OtlpWrite, POST),
    ("/api/v1/longterm/digest", Endpoint::Digest, POST),
    ("/api/v1/longterm/backlog", Endpoint::Backlog, GET | POST),
    ("/api/v1/longterm/preview", Endpoint::LongtermPreview, GET | POST),
    ("/api/v1/admin/tsdb/delete_series", Endpoint::DeleteSeries, POST | PUT),
    ("/api/v1/admin/tsdb/clean_tombstones", Endpoint::CleanTombstones, POST | PUT),
    ("/api/v1/admin/tsdb/snapshot", Endpoint::Snapshot, POST | PUT),
];

/// Everything else.
const REST: &[(&str, Endpoint, u8)] = &[
    ("/", Endpoint::Page, GET),
    ("/graph", Endpoint::Page, GET),
    ("/query", Endpoint::Page, GET),
    ("/targets", Endpoint::Page, GET),
    ("/federate", Endpoint::Federate, GET),
    ("/metrics", Endpoint::Metrics, GET | HEAD),
    ("/version", Endpoint::Version, GET),
    ("/favicon.ico", Endpoint::Favicon, GET),
    ("/favicon.svg", Endpoint::Favicon, GET),
    ("/-/healthy", Endpoint::Healthy, GET | HEAD),
    ("/-/ready", Endpoint::Ready, GET | HEAD),
    ("/-/reload", Endpoint::Reload, GET | POST | PUT),
    ("/-/quit", Endpoint::Quit, GET | POST | PUT),
];

/// Finds the endpoint of a path, whose route prefix is taken off already.
pub(crate) fn route<'a>(method: &Method, path: &'a str) -> Result<Route<'a>, NoRoute> {
    let api = path.starts_with("/api/v1/");
    if api && *method == Method::OPTIONS {
        return Ok(Route { endpoint: Endpoint::Options, handler: "/api/v1/*path", name: "" });
    }
    if let Some(name) = path.strip_prefix("/api/v1/label/").and_then(|rest| rest.strip_suffix("/values"))
        && !name.is_empty()
        && !name.contains('/')
    {
        let handler = "/api/v1/label/:name/values";
        return allow(method, GET, Route { endpoint: Endpoint::LabelValues, handler, name });
    }
    if path.starts_with("/debug/") {
        return Ok(Route { endpoint: Endpoint::Debug, handler: "/debug/*subpath", name: path });
    }
    let table = if api { API } else { REST };
    match table.iter().find(|(p, _, _)| *p == path) {
        Some((handler, endpoint, methods)) => {
            allow(method, *methods, Route { endpoint: *endpoint, handler, name: "" })
        }
        None => Err(NoRoute::NotFound),
    }
}

fn allow<'a>(method: &Method, methods: u8, route: Route<'a>) -> Result<Route<'a>, NoRoute> {
    let bit = match *method {
        Method::GET => GET,
        Method::POST => POST,
        Method::PUT => PUT,
        Method::HEAD => HEAD,
        _ => 0,
    };
    if methods & bit != 0 {
        return Ok(route);
    }
    const GET_POST: u8 = GET | POST;
    const POST_PUT: u8 = POST | PUT;
    const GET_HEAD: u8 = GET | HEAD;
    Err(NoRoute::Method(match methods {
        GET => "GET",
        POST => "POST",
        GET_POST => "GET, POST",
        POST_PUT => "POST, PUT",
        GET_HEAD => "GET, HEAD",
        _ => "GET, POST, PUT",
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_methods() {
        let check = |method: Method, path: &str, expect: Result<Endpoint, NoRoute>| {
            assert_eq!(route(&method, path).map(|r| r.endpoint), expect, "{method} {path}");
        };
        check(Method::GET, "/api/v1/query", Ok(Endpoint::Query));
        check(Method::POST, "/api/v1/query", Ok(Endpoint::Query));
        check(Method::PUT, "/api/v1/query", Err(NoRoute::Method("GET, POST")));
        check(Method::OPTIONS, "/api/v1/anything", Ok(Endpoint::Options));
        check(Method::GET, "/api/v1/label/job/values", Ok(Endpoint::LabelValues));
        check(Method::GET, "/api/v1/label//values", Err(NoRoute::NotFound));
        check(Method::GET, "/api/v1/nothing", Err(NoRoute::NotFound));
        check(Method::HEAD, "/-/ready", Ok(Endpoint::Ready));
        check(Method::DELETE, "/-/reload", Err(NoRoute::Method("GET, POST, PUT")));
        check(Method::GET, "/nowhere", Err(NoRoute::NotFound));
    }
}
