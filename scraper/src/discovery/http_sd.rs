//! HTTP discovery: target groups fetched as JSON.

use super::config::HttpDiscoveryConfig;
use super::manager::ProviderContext;

pub(super) async fn run(config: HttpDiscoveryConfig, context: ProviderContext) {
    let _ = (config, context);
}
