//! almanac: metrics scraper and federation tier with long-term retention, compatible with Prometheus.
//!
//! The program is thin: [`cli`] reads flags, [`config`] reads the file, [`scraper_node`] and [`longterm_node`] put the
//! crates together, [`signals`] says when to stop. Where to read on: `ARCHITECTURE.md`.

#![forbid(unsafe_code)]
#![allow(unreachable_pub, reason = "nothing of a program is reachable from outside")]

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, FromArgMatches};
use model::trace::Tracer;
use tokio::sync::Notify;

mod active_queries;
mod alerting;
mod auto_reload;
mod check;
mod cli;
mod config;
mod explain;
mod limits;
mod logging;
mod longterm_node;
mod longterm_tool;
mod metrics;
mod query_log;
mod rule_test;
mod scraper_node;
mod script;
mod server;
mod signals;
mod status;
mod tasks;
#[cfg(test)]
mod testing;
mod tsdb_tool;
mod web;
mod web_config;

use auto_reload::AutoReload;
use cli::{Cli, Command, GeneralFlags, LongtermFlags, ScraperFlags, StandaloneFlags, TestCommand};
use longterm_node::LongtermNode;
use scraper_node::ScraperNode;
use signals::{Event, Signals};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command = Cli::command();
    let matches = command.clone().get_matches();
    let flags = web::flag_values(&command, &matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let good = match cli.command {
        Some(Command::Check { what }) => {
            logging::init_for_commands();
            return ExitCode::from(check::run(what).exit_code());
        }
        Some(Command::Promql { what }) => explain::run(&what),
        Some(Command::Test { what: TestCommand::Promql { files, storage, quiet } }) => {
            script::run(&files, storage, quiet)
        }
        Some(Command::Test { what: TestCommand::Rules(flags) }) => rule_test::run(&flags),
        Some(Command::Tsdb { what }) => tsdb_tool::run(&what),
        Some(Command::Longterm(l)) if l.what.is_some() => longterm_tool::run(&l),
        Some(Command::Longterm(l)) => serve(&l.general.clone(), run_longterm(*l, flags)),
        Some(Command::Standalone(s)) => serve(&s.general.clone(), run_standalone(*s, flags)),
        None => serve(&cli.scraper.general.clone(), run_scraper(cli.scraper, flags)),
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs a node to its end. A failure is one line on standard error.
fn serve(general: &GeneralFlags, node: impl Future<Output = anyhow::Result<()>>) -> bool {
    logging::init(general);
    for (feature, why) in general.without_effect() {
        tracing::warn!(feature, "--enable-feature: {why}");
    }
    if let Err(reason) = general.refuse() {
        eprintln!("almanac: {reason}");
        return false;
    }
    limits::raise_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("almanac: cannot start: {e}");
            return false;
        }
    };
    let result = runtime.block_on(node);
    // Threads that still wait for a peer must not keep the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    if let Err(e) = &result {
        eprintln!("almanac: {}", format!("{e:#}").replace('\n', " "));
    }
    result.is_ok()
}

async fn run_scraper(f: ScraperFlags, flags: BTreeMap<String, String>) -> anyhow::Result<()> {
    let quit = Arc::new(Notify::new());
    let mut signals = Signals::new(quit.clone())?;
    for flag in f.inert.given() {
        tracing::warn!(flag, "this flag of Prometheus has no effect here");
    }
    let (file, auto, by_feature) =
        (f.config_file.clone(), f.auto_reload, f.general.has("auto-reload-config"));
    let options = scraper_node::Options {
        config_file: f.config_file,
        tsdb_path: f.tsdb_path,
        tsdb: f.tsdb,
        listen: f.listen,
        web: f.web,
        query: f.query,
        scrape: f.scrape,
        alerts: f.alerts,
        general: f.general,
        flags,
        longterm_beside: None,
        tracer: Tracer::default(),
    };
    let node = ScraperNode::start(options, model::SystemClock::shared(), quit).await?;
    let auto = AutoReload::new(&auto, by_feature, &file);
    until_stopped(&mut signals, Some(&node), auto).await;
    node.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

async fn run_longterm(f: LongtermFlags, flags: BTreeMap<String, String>) -> anyhow::Result<()> {
    let quit = Arc::new(Notify::new());
    let mut signals = Signals::new(quit.clone())?;
    let options = longterm_node::Options {
        path: f.path,
        store: f.store,
        listen: f.listen,
        web: f.web,
        query: f.query,
        general: f.general,
        flags,
        tracer: Tracer::default(),
    };
    let node = LongtermNode::start(options, model::SystemClock::shared(), quit).await?;
    until_stopped(&mut signals, None, None).await;
    node.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

/// The long-term node starts first and stops last, so that the scraper node can send what is left.
async fn run_standalone(f: StandaloneFlags, flags: BTreeMap<String, String>) -> anyhow::Result<()> {
    let quit = Arc::new(Notify::new());
    let mut signals = Signals::new(quit.clone())?;
    let clock = model::SystemClock::shared();
    let tracer = Tracer::default();
    let longterm = longterm_node::Options {
        path: f.path.join("longterm"),
        store: f.store,
        listen: f.longterm_listen,
        web: f.web.clone(),
        query: f.query.clone(),
        general: f.general.clone(),
        flags: flags.clone(),
        tracer: tracer.clone(),
    };
    let longterm = LongtermNode::start(longterm, clock.clone(), quit.clone()).await?;
    let (file, auto, by_feature) =
        (f.config_file.clone(), f.auto_reload, f.general.has("auto-reload-config"));
    let scraper = scraper_node::Options {
        config_file: f.config_file,
        tsdb_path: f.path.join("tsdb"),
        tsdb: f.tsdb,
        listen: f.listen,
        web: f.web,
        query: f.query,
        scrape: f.scrape,
        alerts: f.alerts,
        general: f.general,
        flags,
        longterm_beside: Some(format!("http://127.0.0.1:{}", longterm.port())),
        tracer,
    };
    let scraper = match ScraperNode::start(scraper, clock, quit).await {
        Ok(node) => node,
        Err(e) => {
            longterm.stop().await?;
            return Err(e);
        }
    };
    let auto = AutoReload::new(&auto, by_feature, &file);
    until_stopped(&mut signals, Some(&scraper), auto).await;
    scraper.stop().await?;
    longterm.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

async fn until_stopped(signals: &mut Signals, node: Option<&ScraperNode>, mut auto: Option<AutoReload>) {
    loop {
        let changed = async {
            match &auto {
                Some(auto) => auto.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = signals.next() => if event != Event::Reload { return },
            () = changed => {}
        }
        let Some(node) = node else { continue };
        // A failure is in the log; the configuration before stays in force.
        if node.reload().await.is_ok()
            && let Some(auto) = &mut auto
        {
            auto.loaded();
        }
    }
}
