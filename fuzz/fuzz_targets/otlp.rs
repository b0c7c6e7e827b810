//! OTLP metrics of any bytes, as protobuf and as JSON. No panic, bounded memory, and an end.
//!
//! Begins with a good request in both forms, which it writes into the folder that `ALMANAC_FUZZ_SEEDS` names.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::labels::LabelsWriter;
use model::{AppendError, Exemplar, Labels, Metadata, Sample};
use wire::otlp::{Promote, Settings, Sink, json_to_protobuf, translate};

/// Looks whether labels are as they must be, and keeps nothing.
struct Checked;

impl Sink for Checked {
    fn append(
        &mut self,
        labels: &LabelsWriter,
        _: Sample,
        _: &[Exemplar],
        _: &Metadata,
    ) -> Result<(), AppendError> {
        assert!(Labels::from_packed(labels.iter().as_packed()).is_some(), "sorted, without empty values");
        Ok(())
    }
}

const REQUEST: &str = r#"{"resourceMetrics":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}},
{"key":"m","value":{"kvlistValue":{"values":[{"key":"l","value":{"arrayValue":{"values":[{"doubleValue":1e-7},{"bytesValue":"YWJj"}]}}}]}}}]},
"scopeMetrics":[{"scope":{"name":"l","attributes":[{"key":"x","value":{"boolValue":true}}]},"metrics":[
{"name":"g.a","unit":"By/s","gauge":{"dataPoints":[{"asInt":"1","timeUnixNano":"1000000000","attributes":[{"key":"a.b","value":{"intValue":"1"}}]}]}},
{"name":"h","histogram":{"aggregationTemporality":2,"dataPoints":[{"count":"3","sum":2,"explicitBounds":[1],"bucketCounts":["1","2"],
"exemplars":[{"asInt":"1","traceId":"000102030405060708090a0b0c0d0e0f"}]}]}},
{"name":"e","exponentialHistogram":{"aggregationTemporality":1,"dataPoints":[{"count":"3","scale":9,"positive":{"offset":1,"bucketCounts":[1,0,0,0,2]}}]}},
{"name":"s","summary":{"dataPoints":[{"flags":1,"quantileValues":[{"quantile":0.5,"value":1}]}]}}]}]}]}"#;

fn write_seeds() {
    if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        let protobuf = json_to_protobuf(REQUEST.as_bytes(), 1 << 20).expect("a request");
        for (n, (choice, body)) in
            [(0_u8, REQUEST.as_bytes()), (1, &protobuf[..]), (0xff, &protobuf[..])].into_iter().enumerate()
        {
            let seed = [&[choice][..], body].concat();
            std::fs::write(folder.join(format!("seed-{n:02}")), seed).expect("the folder is there");
        }
    }
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let bit = |n: u8| choice & (1 << n) != 0;
    let settings = Settings {
        suffixes: bit(1),
        utf8: bit(2),
        promote: if bit(3) { Promote::AllBut(Default::default()) } else { Promote::Only(Default::default()) },
        convert_histograms_to_nhcb: bit(4),
        promote_scope_metadata: bit(5),
        label_name_preserve_multiple_underscores: bit(6),
        allow_delta: bit(7),
        type_and_unit_labels: bit(7),
        max_label_bytes: 1 << 20,
        ..Settings::default()
    };
    let json;
    let body = if bit(0) {
        body
    } else {
        let Ok(made) = json_to_protobuf(body, 1 << 20) else { return };
        json = made;
        &json
    };
    let _ = translate(body, &settings, 1 << 40, &mut Checked);
});
