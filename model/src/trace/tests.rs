use std::time::Duration;

use super::*;
use crate::clock::ManualClock;

fn recorded(fraction: f64) -> (Tracer, Arc<MemorySink>, Arc<ManualClock>) {
    let (sink, clock) = (Arc::new(MemorySink::default()), Arc::new(ManualClock::new(1_000)));
    let tracer = Tracer::default();
    tracer.install(Some(Recorder::new(sink.clone(), clock.clone(), fraction, [7, 8])));
    (tracer, sink, clock)
}

#[test]
fn children_know_their_parents_and_lie_within_them() {
    let (tracer, sink, clock) = recorded(1.0);
    let mut root = tracer.start("root");
    root.set("n", 1);
    root.set("n", 2);
    let entered = root.enter();
    clock.advance(Duration::from_millis(5));
    // The wall clock is set back: the trace keeps to its own measure.
    clock.set_ms(500);
    let inner = child("inner");
    {
        let _entered = inner.enter();
        client("innermost").fail(&"no");
    }
    clock.advance(Duration::from_millis(5));
    drop(inner);
    drop(entered);
    drop(child("elsewhere"));
    drop(root);
    let spans = sink.taken();
    let [innermost, inner, root] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((root.parent, inner.parent), (None, Some(root.context.span_id)));
    assert_eq!(innermost.parent, Some(inner.context.span_id));
    assert!(spans.iter().all(|s| s.context.trace_id == root.context.trace_id));
    assert_eq!((root.start_ns, root.end_ns), (1_000_000_000, 1_010_000_000));
    assert_eq!((inner.start_ns, inner.end_ns), (1_005_000_000, 1_010_000_000));
    assert_eq!(root.attributes, [("n", AttributeValue::Int(2))]);
    assert_eq!((innermost.kind, innermost.failure.as_deref()), (SpanKind::Client, Some("no")));
    assert_eq!(innermost.events[0].attributes, [("exception.message", "no".into())]);
}

#[test]
fn the_parent_decides_and_else_the_share() {
    for (fraction, expect) in [(0.0, 0..=0), (1.0, 1000..=1000), (0.25, 200..=300), (f64::NAN, 0..=0)] {
        let (tracer, sink, _) = recorded(fraction);
        for _ in 0..1000 {
            let span = tracer.start("root");
            assert_eq!(span.is_recording(), span.link().context().expect("an identity").is_sampled());
        }
        let count = sink.taken().len();
        assert!(expect.contains(&count), "{fraction}: {count}");
        for flag in ["00", "01"] {
            let parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-{flag}");
            let parent = SpanContext::parse(&parent, "a=b");
            let span = tracer.continued(parent, SpanKind::Server, || "request".into());
            let context = span.link().context().expect("an identity").clone();
            assert_eq!(context.trace_id.to_string(), "4bf92f3577b34da6a3ce929d0e0e4736");
            assert!(
                &*context.state == "a=b"
                    && !context.remote
                    && context.span_id.to_string() != "00f067aa0ba902b7"
            );
            drop(span);
            let spans = sink.taken();
            assert_eq!(spans.len(), usize::from(flag == "01"));
            assert!(spans.iter().all(|s| s.parent_is_remote && s.parent.is_some()));
        }
    }
}

#[test]
fn switched_off_a_context_is_handed_on_and_nothing_else() {
    let tracer = Tracer::default();
    assert!(tracer.start("x").link().context().is_none());
    let parent = SpanContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "");
    let span = tracer.continued(parent.clone(), SpanKind::Server, || unreachable!("nothing is recorded"));
    let _entered = span.enter();
    assert_eq!(child("y").link().context(), parent.as_ref());
    assert!(!child("y").is_recording());
}

#[test]
fn a_future_takes_its_place_along() {
    let (tracer, sink, _) = recorded(1.0);
    let root = tracer.start("root");
    let mut future = pin!(within(root.link(), async {
        drop(child("first"));
        let mut waited = false;
        std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut waited, true) {
                std::task::Poll::Ready(())
            } else {
                std::task::Poll::Pending
            }
        })
        .await;
        drop(child("second"));
    }));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(future.as_mut().poll(&mut cx).is_pending());
    assert!(current().context().is_none());
    assert!(future.as_mut().poll(&mut cx).is_ready());
    drop(root);
    assert_eq!(sink.paths(), ["root", "root > first", "root > second"]);
}

#[test]
fn spans_go_where_they_began() {
    let (tracer, sink, _) = recorded(1.0);
    let span = tracer.start("before");
    tracer.install(None);
    drop(span);
    drop(tracer.start("after"));
    assert_eq!(sink.paths(), ["before"]);
}
