//! Requests and their exact answers.

use crate::support::{enc, start};

/// Method and path, status, body.
type Case = (&'static str, u16, String);

fn ok(data: &str) -> String {
    format!("{{\"status\":\"success\",\"data\":{data}}}")
}

fn err(kind: &str, text: &str) -> String {
    format!("{{\"status\":\"error\",\"errorType\":\"{kind}\",\"error\":{}}}", serde_json::Value::from(text))
}

fn check(cases: &[Case]) {
    let server = start();
    for (request, status, body) in cases {
        let (method, path) = request.split_once(' ').expect("method and path");
        let answer = server.request(method, path, &[], b"");
        assert_eq!(answer.text(), body, "{request}");
        assert_eq!(answer.status, *status, "{request}");
        if *status != 204 {
            assert_eq!(answer.header("content-type"), Some("application/json"), "{request}");
        }
    }
}

const UP_A: &str = r#"{"__name__":"up","instance":"a:1","job":"node"}"#;
const UP_B: &str = r#"{"__name__":"up","instance":"b:2","job":"node"}"#;
const ODD: &str = r#"{"__name__":"temp_celsius","http.status":"<200>","site":"é\""}"#;

#[test]
fn series_and_labels() {
    check(&[
        ("GET /api/v1/series?match[]=up", 200, ok(&format!("[{UP_A},{UP_B}]"))),
        (
            "GET /api/v1/series?match[]=up&match[]=%7Binstance%3D%22a:1%22%7D&match[]=temp_celsius",
            200,
            ok(&format!("[{ODD},{UP_A},{UP_B}]")),
        ),
        (
            "GET /api/v1/series?match[]=up&limit=1",
            200,
            format!(
                "{{\"status\":\"success\",\"data\":[{UP_A}],\"warnings\":[\"results truncated due to limit\"]}}"
            ),
        ),
        ("GET /api/v1/series?match[]=up&limit=2", 200, ok(&format!("[{UP_A},{UP_B}]"))),
        ("GET /api/v1/series?match[]=up&start=0&end=1", 200, ok("[]")),
        ("GET /api/v1/series", 400, err("bad_data", "no match[] parameter provided")),
        (
            "GET /api/v1/series?match[]=%7Ba%3D%22%22%7D",
            400,
            err("bad_data", "invalid parameter \"match[]\": match[] must contain at least one non-empty matcher"),
        ),
        (
            "GET /api/v1/series?match[]=up&limit=-1",
            400,
            err("bad_data", "invalid parameter \"limit\": limit must be non-negative"),
        ),
        (
            "GET /api/v1/series?match[]=up&limit=x",
            400,
            err("bad_data", "invalid parameter \"limit\": strconv.Atoi: parsing \"x\": invalid syntax"),
        ),
        (
            "GET /api/v1/series?match[]=up&start=x",
            400,
            err(
                "bad_data",
                "invalid parameter \"start\": invalid time value for 'start': cannot parse \"x\" to a valid timestamp",
            ),
        ),
        ("GET /api/v1/labels", 200, ok(r#"["__name__","http.status","instance","job","site"]"#)),
        ("GET /api/v1/labels?match[]=up", 200, ok(r#"["__name__","instance","job"]"#)),
        (
            "GET /api/v1/labels?limit=2",
            200,
            r#"{"status":"success","data":["__name__","http.status"],"warnings":["results truncated due to limit"]}"#
                .into(),
        ),
        ("GET /api/v1/label/instance/values", 200, ok(r#"["a:1","b:2"]"#)),
        ("GET /api/v1/label/U__http_2e_status/values", 200, ok(r#"["\u003c200\u003e"]"#)),
        ("GET /api/v1/label/http.status/values", 200, ok(r#"["\u003c200\u003e"]"#)),
        ("GET /api/v1/label/http%2Estatus/values?match[]=up", 200, ok("[]")),
        ("GET /api/v1/label/none/values", 200, ok("[]")),
        (
            "GET /api/v1/label/instance/values?match[]=up&match[]=temp_celsius&limit=1",
            200,
            r#"{"status":"success","data":["a:1"],"warnings":["results truncated due to limit"]}"#.into(),
        ),
    ]);
}

#[test]
fn metadata_and_targets() {
    let node = r#"{"instance":"a:1","job":"node"}"#;
    let app = r#"{"instance":"c:3","job":"app"}"#;
    let active_app = format!(
        r#"{{"discoveredLabels":{{}},"labels":{app},"scrapePool":"app","scrapeUrl":"http://localhost:3/metrics","globalUrl":"http://localhost:3/metrics","lastError":"connection refused","lastScrape":"0001-01-01T00:00:00Z","lastScrapeDuration":0,"health":"down","scrapeInterval":"1m","scrapeTimeout":"10s"}}"#
    );
    let active_node = format!(
        r#"{{"discoveredLabels":{{"__address__":"a:1"}},"labels":{node},"scrapePool":"node","scrapeUrl":"http://a:1/metrics","globalUrl":"http://a:1/metrics","lastError":"","lastScrape":"2023-12-31T23:59:58.5Z","lastScrapeDuration":0.25,"health":"up","scrapeInterval":"15s","scrapeTimeout":"10s"}}"#
    );
    let dropped = r#"{"discoveredLabels":{"__address__":"z:9"},"scrapePool":"node"}"#;
    let counts = r#"{"app":0,"node":1}"#;
    check(&[
        (
            "GET /api/v1/metadata",
            200,
            ok(
                r#"{"requests":[{"type":"counter","unit":"","help":"Requests \u003c 1"},{"type":"counter","unit":"","help":"All requests"}],"temp_celsius":[{"type":"gauge","unit":"","help":"Temperature"}]}"#,
            ),
        ),
        (
            "GET /api/v1/metadata?metric=requests&limit_per_metric=1",
            200,
            ok(r#"{"requests":[{"type":"counter","unit":"","help":"Requests \u003c 1"}]}"#),
        ),
        ("GET /api/v1/metadata?limit=0", 200, ok("{}")),
        ("GET /api/v1/metadata?limit=x", 400, err("bad_data", "limit must be a number")),
        (
            "GET /api/v1/targets/metadata?metric=requests&match_target=%7Bjob%3D%22app%22%7D",
            200,
            ok(&format!(r#"[{{"target":{app},"type":"counter","help":"All requests","unit":""}}]"#)),
        ),
        (
            "GET /api/v1/targets/metadata?limit=1",
            200,
            ok(&format!(
                r#"[{{"target":{node},"metric":"requests","type":"counter","help":"Requests \u003c 1","unit":""}}]"#
            )),
        ),
        (
            "GET /api/v1/targets",
            200,
            ok(&format!(
                r#"{{"activeTargets":[{active_app},{active_node}],"droppedTargets":[{dropped}],"droppedTargetCounts":{counts}}}"#
            )),
        ),
        (
            "GET /api/v1/targets?state=active&scrapePool=node",
            200,
            ok(&format!(
                r#"{{"activeTargets":[{active_node}],"droppedTargets":[],"droppedTargetCounts":null}}"#
            )),
        ),
        (
            "GET /api/v1/targets?state=dropped&scrapePool=app",
            200,
            ok(&format!(r#"{{"activeTargets":[],"droppedTargets":[],"droppedTargetCounts":{counts}}}"#)),
        ),
        ("GET /api/v1/scrape_pools", 200, ok(r#"{"scrapePools":["app","node"]}"#)),
        ("GET /api/v1/scrape_pools/config?scrapePool=node", 200, ok(r#"{"yaml":"job_name: node\n"}"#)),
        ("GET /api/v1/scrape_pools/config", 400, err("bad_data", "no scrapePool parameter provided")),
        (
            "GET /api/v1/targets/relabel_steps",
            500,
            err("unavailable", "not supported: /api/v1/targets/relabel_steps"),
        ),
    ]);
}

#[test]
fn rules_and_alerts() {
    let recording = r#"{"name":"job:up:sum","query":"sum by (job) (up)","health":"ok","evaluationTime":0.001,"lastEvaluation":"2024-01-01T00:00:00Z","type":"recording"}"#;
    let alert = r#"{"labels":{"alertname":"Down","instance":"b:2"},"annotations":{"summary":"b:2 is down"},"state":"firing","activeAt":"2023-12-31T23:59:00Z","value":"0e+00"}"#;
    let alerting = |alerts: &str| {
        format!(
            r#"{{"state":"firing","name":"Down","query":"up == 0","duration":60,"keepFiringFor":0,"labels":{{"severity":"page"}},"annotations":{{}},"alerts":{alerts},"health":"ok","evaluationTime":0,"lastEvaluation":"0001-01-01T00:00:00Z","type":"alerting"}}"#
        )
    };
    let group = |name: &str, rules: &str| {
        format!(
            r#"{{"name":"{name}","file":"r.yml","rules":[{rules}],"interval":15,"limit":0,"evaluationTime":0,"lastEvaluation":"2024-01-01T00:00:00Z"}}"#
        )
    };
    let g1 = group("g1", recording);
    let g2 = group("g2", &alerting(&format!("[{alert}]")));
    check(&[
        ("GET /api/v1/rules", 200, ok(&format!(r#"{{"groups":[{g1},{g2}]}}"#))),
        ("GET /api/v1/rules?type=record", 200, ok(&format!(r#"{{"groups":[{g1}]}}"#))),
        (
            "GET /api/v1/rules?type=alert&exclude_alerts=true",
            200,
            ok(&format!(r#"{{"groups":[{}]}}"#, group("g2", &alerting("null")))),
        ),
        ("GET /api/v1/rules?rule_name[]=Down", 200, ok(&format!(r#"{{"groups":[{g2}]}}"#))),
        ("GET /api/v1/rules?rule_group[]=g1&file[]=r.yml", 200, ok(&format!(r#"{{"groups":[{g1}]}}"#))),
        (
            "GET /api/v1/rules?match[]=%7Bseverity%3D%22page%22%7D",
            200,
            ok(&format!(r#"{{"groups":[{g2}]}}"#)),
        ),
        (
            "GET /api/v1/rules?type=x",
            400,
            err("bad_data", "invalid parameter \"type\": not supported value \"x\""),
        ),
        (
            "GET /api/v1/rules?group_limit=0",
            400,
            err("bad_data", "invalid parameter \"group_limit\": group_limit needs to be greater than 0"),
        ),
        (
            "GET /api/v1/rules?group_limit=1&group_next_token=zz",
            400,
            err(
                "bad_data",
                "invalid parameter \"group_next_token\": invalid group_next_token 'zz'. were rule groups changed?",
            ),
        ),
        ("GET /api/v1/alerts", 200, ok(&format!(r#"{{"alerts":[{alert}]}}"#))),
        (
            "GET /api/v1/alertmanagers",
            200,
            ok(
                r#"{"activeAlertmanagers":[{"url":"http://am:9093/api/v2/alerts"}],"droppedAlertmanagers":[]}"#,
            ),
        ),
    ]);
}

#[test]
fn rule_groups_come_in_pages() {
    let server = start();
    let first = server.get("/api/v1/rules?group_limit=1").json();
    assert_eq!(first["data"]["groups"][0]["name"], "g1");
    let token = first["data"]["groupNextToken"].as_str().expect("there is more").to_owned();
    let second = server.get(&format!("/api/v1/rules?group_limit=1&group_next_token={}", enc(&token))).json();
    assert_eq!(second["data"]["groups"][0]["name"], "g2");
    assert!(second["data"].get("groupNextToken").is_none());
}

#[test]
fn status() {
    check(&[
        (
            "GET /api/v1/status/buildinfo",
            200,
            ok(
                r#"{"version":"3.14.0","revision":"abc","branch":"main","buildUser":"u@h","buildDate":"20240101","goVersion":"rustc 1.95"}"#,
            ),
        ),
        ("GET /api/v1/status/config", 200, ok(r#"{"yaml":"global:\n  scrape_interval: 15s\n"}"#)),
        ("GET /api/v1/status/flags", 200, ok(r#"{"config.file":"p.yml","web.page-title":"a \u0026 b"}"#)),
        (
            "GET /api/v1/status/runtimeinfo",
            200,
            ok(
                r#"{"startTime":"2023-12-31T23:59:00Z","CWD":"/","hostname":"h","serverTime":"2024-01-01T00:00:00Z","reloadConfigSuccess":true,"lastConfigTime":"2023-12-31T23:59:00Z","corruptionCount":0,"goroutineCount":7,"GOMAXPROCS":2,"GOMEMLIMIT":9223372036854775807,"GOGC":"","GODEBUG":"","storageRetention":"15d"}"#,
            ),
        ),
        (
            "GET /api/v1/status/tsdb?limit=1",
            200,
            ok(
                r#"{"headStats":{"numSeries":3,"numLabelPairs":5,"chunkCount":9,"minTime":1704066600000,"maxTime":1704067200000},"seriesCountByMetricName":[{"name":"up","value":2}],"labelValueCountByLabelName":[],"memoryInBytesByLabelName":[],"seriesCountByLabelValuePair":[]}"#,
            ),
        ),
        (
            "GET /api/v1/status/cardinality?limit=1",
            200,
            ok(
                r#"{"server":{"softLimit":0,"reserve":0,"current":7},"jobs":[{"job":"node","softLimit":6,"reserve":1,"current":7,"refused":2,"refusedTotal":{"job_limit":3},"newSeriesLastHour":9,"windowSeconds":60,"metricNames":[{"name":"m","newSeries":5,"refused":3}],"labelNames":[{"name":"path","newSeries":5,"refused":3,"values":4}]}]}"#,
            ),
        ),
        ("GET /api/v1/status/cardinality?limit=x", 400, err("bad_data", "limit must be a positive number")),
        ("GET /api/v1/status/tsdb?limit=0", 400, err("bad_data", "limit must be a positive number")),
        ("GET /api/v1/status/tsdb?limit=10001", 400, err("bad_data", "limit must not exceed 10000")),
        (
            "GET /api/v1/status/tsdb/blocks",
            500,
            err("unavailable", "not supported: block list of this store"),
        ),
        ("GET /api/v1/status/walreplay", 200, ok(r#"{"min":1,"max":4,"current":3}"#)),
        ("GET /api/v1/notifications", 200, ok("[]")),
        ("GET /api/v1/search/metric_names", 500, err("unavailable", "search API disabled")),
        (
            "GET /api/v1/query_exemplars?query=up",
            200,
            ok(
                r#"[{"seriesLabels":{"__name__":"up","job":"node"},"exemplars":[{"labels":{"trace_id":"t1"},"value":"6","timestamp":1704067199.979}]}]"#,
            ),
        ),
        ("GET /api/v1/query_exemplars?query=down", 200, ok("[]")),
        (
            "GET /api/v1/query_exemplars?query=up&start=2&end=1",
            400,
            err("bad_data", "end timestamp must not be before start timestamp"),
        ),
        ("GET /api/v1/query_exemplars?query=1", 204, String::new()),
    ]);
}

#[test]
fn admin() {
    check(&[
        ("POST /api/v1/admin/tsdb/delete_series?match[]=up&start=1&end=2", 204, String::new()),
        ("PUT /api/v1/admin/tsdb/delete_series?match[]=up", 204, String::new()),
        (
            "POST /api/v1/admin/tsdb/delete_series?match[]=up&start=1&end=2&dry_run=true",
            200,
            ok(r#"{"series":1,"samples":1000}"#),
        ),
        ("POST /api/v1/admin/tsdb/delete_series", 400, err("bad_data", "no match[] parameter provided")),
        ("POST /api/v1/admin/tsdb/clean_tombstones", 204, String::new()),
        ("POST /api/v1/admin/tsdb/snapshot", 200, ok(r#"{"name":"20240101T000000Z-1"}"#)),
        (
            "POST /api/v1/admin/tsdb/snapshot?skip_head=true",
            500,
            err("unavailable", "create snapshot: not supported: snapshot without the head"),
        ),
        (
            "POST /api/v1/admin/tsdb/snapshot?skip_head=x",
            400,
            err(
                "bad_data",
                "invalid parameter \"skip_head\": unable to parse boolean: strconv.ParseBool: parsing \"x\": invalid syntax",
            ),
        ),
    ]);
}
