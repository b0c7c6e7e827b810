//! Rules of relabeling and label sets of any text: refused, or applied in bounded time, and what comes out is a label set.
//!
//! Lines `action|source labels|separator|regex|modulus|target label|replacement` are rules, lines `name=value` are labels.
#![no_main]

use libfuzzer_sys::fuzz_target;
use model::relabel::{NameValidation, RelabelAction, RelabelRule, process};
use model::{Labels, LabelsBuilder, Regexp};

const SEEDS: [&str; 4] = [
    "replace|__meta_a,b|;|(.*)_x;(.+)|0|t_${1}|$2-$$1\n__meta_a=v_x\nb=w\n",
    "labelmap||;|__meta_(.+)|0||k_$1\nlabeldrop||;|__meta.*|0||\n__meta_x=1\n__meta_y=\n",
    "hashmod|a,b|;|(.*)|7|shard|\nkeep|shard|;|[0-3]|0||\nlowercase|a||(.*)|0|c|\na=ÄB\nb=ß\n",
    "keepequal|a||(.*)|0|b|\ndropequal|a||(.*)|0|c|\nuppercase|a||(.*)|0|a|\nlabelkeep||;|a|b|0||\na=x\nb=x\n",
];

fn write_seeds() {
    if let Some(folder) = std::env::var_os("ALMANAC_FUZZ_SEEDS").map(std::path::PathBuf::from) {
        for (n, text) in SEEDS.iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{n}")), text).expect("the folder is there");
        }
    }
}

fn rule(line: &str, names: NameValidation) -> Option<RelabelRule> {
    let parts: Vec<&str> = line.splitn(7, '|').collect();
    let [action, sources, separator, regex, modulus, target, replacement] = parts[..] else { return None };
    let rule = RelabelRule {
        source_labels: sources.split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
        separator: separator.to_owned(),
        regex: Regexp::new(regex).ok()?,
        modulus: modulus.parse().ok()?,
        target_label: target.to_owned(),
        replacement: replacement.to_owned(),
        action: RelabelAction::parse(action).ok()?,
        names,
    };
    rule.validated().ok()
}

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lines = || text.lines().take(64);
    let labels = Labels::from_pairs(lines().filter(|l| !l.contains('|')).filter_map(|l| l.split_once('=')).filter(|l| !l.0.is_empty()));
    for names in [NameValidation::Utf8, NameValidation::Legacy] {
        let rules: Vec<RelabelRule> = lines().filter_map(|l| rule(l, names)).collect();
        let mut builder = LabelsBuilder::from_labels(&labels);
        let kept = process(&rules, &mut builder);
        let after = builder.build();
        let sorted: Vec<_> = after.iter().collect();
        assert!(sorted.windows(2).all(|w| w[0].0 < w[1].0), "in order, each name once: {after}");
        assert!(sorted.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{after}");
        // The same again, one rule at a time.
        let mut step = labels.clone();
        let mut stays = true;
        for rule in &rules {
            let mut builder = LabelsBuilder::from_labels(&step);
            stays = process(std::slice::from_ref(rule), &mut builder);
            step = builder.build();
            if !stays {
                break;
            }
        }
        assert_eq!((kept, &after), (stays, &step));
    }
});
