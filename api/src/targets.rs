//! Targets and scrape pools: `/targets`, `/scrape_pools`, `/scrape_pools/config`.

use std::sync::Arc;

use url::{Host, Url};

use crate::app::{Answer, App, Request};
use crate::body::BodyOut;
use crate::failure::Failure;
use crate::sources::ActiveTarget;

/// `/api/v1/targets`
pub(crate) fn targets(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let pool = request.params.get_url("scrapePool").to_owned();
    let state = request.params.get_url("state").to_lowercase();
    let wanted = |kind: &str| state.is_empty() || state == "any" || state == kind;
    let in_pool = |name: &str| pool.is_empty() || pool == name;

    let mut active = Vec::new();
    if wanted("active") {
        active = app.deps.targets.active();
        active.retain(|t| in_pool(&t.scrape_pool));
        active.sort_by(|a, b| a.scrape_pool.cmp(&b.scrape_pool));
    }
    let show_dropped = wanted("dropped");
    let (mut dropped, mut counts) = (Vec::new(), None);
    if show_dropped {
        counts = Some(app.deps.targets.dropped_counts());
        dropped = app.deps.targets.dropped();
        dropped.retain(|t| in_pool(&t.scrape_pool));
        dropped.sort_by(|a, b| a.scrape_pool.cmp(&b.scrape_pool));
    }
    let external = app.config.external_url.clone();
    let own_port = own_port(&app.config.listen_addresses);
    Ok(Answer::data(move |out| {
        out.raw("{\"activeTargets\":");
        out.list(&active, |out, t| write_active(out, t, &external, own_port));
        out.raw(",\"droppedTargets\":");
        out.list(&dropped, |out, t| {
            out.raw("{\"discoveredLabels\":");
            out.labels(&t.discovered_labels);
            out.raw(",\"scrapePool\":");
            out.string(&t.scrape_pool);
            out.raw("}");
        });
        out.raw(",\"droppedTargetCounts\":");
        match &counts {
            None => out.raw("null"),
            Some(counts) => {
                out.raw("{");
                for (i, (pool, n)) in counts.iter().enumerate() {
                    out.raw(if i > 0 { "," } else { "" });
                    out.string(pool);
                    out.raw(":");
                    out.int(*n);
                }
                out.raw("}");
            }
        }
        out.raw("}");
    }))
}

fn write_active(out: &mut BodyOut, t: &ActiveTarget, external: &Url, own_port: Option<u16>) {
    out.raw("{\"discoveredLabels\":");
    out.labels(&t.discovered_labels);
    out.raw(",\"labels\":");
    out.labels(&t.labels);
    for (name, value) in [
        ("scrapePool", t.scrape_pool.as_str()),
        ("scrapeUrl", &t.scrape_url),
        ("globalUrl", &global_url(&t.scrape_url, external, own_port)),
        ("lastError", &t.last_error),
    ] {
        out.raw(",");
        out.key(name);
        out.string(value);
    }
    out.raw(",\"lastScrape\":");
    out.time(t.last_scrape_ms);
    out.raw(",\"lastScrapeDuration\":");
    out.number(t.last_scrape_seconds);
    for (name, value) in [
        ("health", t.health.as_str()),
        ("scrapeInterval", &t.scrape_interval),
        ("scrapeTimeout", &t.scrape_timeout),
    ] {
        out.raw(",");
        out.key(name);
        out.string(value);
    }
    out.raw("}");
}

fn own_port(listen: &[String]) -> Option<u16> {
    listen.first()?.rsplit_once(':')?.1.parse().ok()
}

/// The URL under which a target is reached from elsewhere: a loopback host is replaced by the external one, and for this
/// program itself scheme and port too.
fn global_url(scrape_url: &str, external: &Url, own_port: Option<u16>) -> String {
    let Ok(mut url) = Url::parse(scrape_url) else {
        return scrape_url.to_owned();
    };
    let local = match url.host() {
        Some(Host::Domain(d)) => d == "localhost",
        Some(Host::Ipv4(a)) => a == std::net::Ipv4Addr::LOCALHOST,
        Some(Host::Ipv6(a)) => a == std::net::Ipv6Addr::LOCALHOST,
        None => false,
    };
    if !local {
        return scrape_url.to_owned();
    }
    let host = external.host_str();
    let replaced = if own_port.is_some() && url.port() == own_port {
        url.set_scheme(external.scheme()).is_ok()
            && url.set_host(host).is_ok()
            && url.set_port(external.port()).is_ok()
    } else {
        url.set_host(host).is_ok()
    };
    if replaced { url.into() } else { scrape_url.to_owned() }
}

/// `/api/v1/scrape_pools`
pub(crate) fn scrape_pools(app: &Arc<App>) -> Result<Answer, Failure> {
    let mut pools = app.deps.targets.scrape_pools();
    pools.sort();
    Ok(Answer::data(move |out| {
        out.raw("{\"scrapePools\":");
        out.strings(pools.iter().map(String::as_str));
        out.raw("}");
    }))
}

/// `/api/v1/scrape_pools/config`
pub(crate) fn scrape_pool_config(app: &Arc<App>, request: &Request) -> Result<Answer, Failure> {
    let pool = request.params.get("scrapePool");
    if pool.is_empty() {
        return Err(Failure::bad_data("no scrapePool parameter provided"));
    }
    let Some(yaml) = app.deps.targets.scrape_pool_config(pool) else {
        return Err(Failure::bad_data(format!(
            "error retrieving scrape config: scrape pool {} not found",
            model::labels::Quoted(pool)
        )));
    };
    Ok(Answer::data(move |out| {
        out.raw("{\"yaml\":");
        out.string(&yaml);
        out.raw("}");
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts_are_shown_as_reached_from_outside() {
        let external = Url::parse("https://mon.example:8443/prom").expect("URL");
        let check = |url: &str, expect: &str| assert_eq!(global_url(url, &external, Some(9090)), expect);
        check("http://10.0.0.1:9090/metrics", "http://10.0.0.1:9090/metrics");
        check("http://localhost:9100/metrics", "http://mon.example:9100/metrics");
        check("http://127.0.0.1:9090/metrics", "https://mon.example:8443/metrics");
        check("http://[::1]:9100/metrics", "http://mon.example:9100/metrics");
        check("not a url", "not a url");
    }
}
