//! Traces: what was done for one request, in spans that know their parent.
//!
//! A [`Tracer`] begins spans at the borders of the program (a request that comes in, a scrape, a group of rules); inside,
//! [`child`] begins one below the current span of the thread, which [`Span::enter`] sets for plain code and [`within`]
//! for futures. Who has nothing current pays one look at a thread's variable, and nothing is recorded. Ended spans go to
//! a [`SpanSink`], which must not block; sending them on is the crate `spans`.
//!
//! As with Prometheus, tracing switched off still hands on the context that a caller sent. Spans of a trace that is not
//! sampled share the identity of the first one: nobody sees them.

mod context;

use std::borrow::Cow;
use std::cell::RefCell;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

pub use context::{SpanContext, SpanId, TraceId};

use crate::{Clock, rng};

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq)]
pub enum AttributeValue {
    /// A text.
    Text(Cow<'static, str>),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
}

impl From<&'static str> for AttributeValue {
    fn from(v: &'static str) -> Self {
        Self::Text(Cow::Borrowed(v))
    }
}

impl From<String> for AttributeValue {
    fn from(v: String) -> Self {
        Self::Text(Cow::Owned(v))
    }
}

impl From<i64> for AttributeValue {
    fn from(v: i64) -> Self {
        Self::Int(v)
    }
}

impl From<f64> for AttributeValue {
    fn from(v: f64) -> Self {
        Self::Float(v)
    }
}

/// What part a span has in a conversation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpanKind {
    /// Inside the program.
    #[default]
    Internal,
    /// A request that came in.
    Server,
    /// A request to someone else.
    Client,
}

/// Something that happened at a moment of a span.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanEvent {
    /// When, since the Unix epoch.
    pub time_ns: u64,
    /// What.
    pub name: &'static str,
    /// More about it.
    pub attributes: Vec<(&'static str, AttributeValue)>,
}

/// A span as it is told when it has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanData {
    /// Its identity.
    pub context: SpanContext,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Whether that one belongs to another program.
    pub parent_is_remote: bool,
    /// Name.
    pub name: Cow<'static, str>,
    /// Kind.
    pub kind: SpanKind,
    /// Begin, since the Unix epoch.
    pub start_ns: u64,
    /// End, since the Unix epoch.
    pub end_ns: u64,
    /// Attributes; each key once.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// Events in the order of time.
    pub events: Vec<SpanEvent>,
    /// Why it failed, if it did; may be empty.
    pub failure: Option<String>,
}

/// Takes spans that have ended. Called wherever a span ends: it must not block.
pub trait SpanSink: Send + Sync + 'static {
    /// Takes one span.
    fn take(&self, span: SpanData);
}

/// What records spans, for as long as it is installed in a [`Tracer`].
pub struct Recorder {
    sink: Arc<dyn SpanSink>,
    clock: Arc<dyn Clock>,
    /// Traces are recorded whose random bits are below; the maximum stands for all.
    threshold: u64,
    seeds: [u64; 2],
    drawn: AtomicU64,
}

impl Recorder {
    /// Records the given share of traces that begin here, and of others those that their caller records. Identities are drawn
    /// from `seeds`, which have to differ from process to process.
    #[must_use]
    pub fn new(sink: Arc<dyn SpanSink>, clock: Arc<dyn Clock>, fraction: f64, seeds: [u64; 2]) -> Self {
        // As OpenTelemetry compares: 63 random bits against a share of them. NaN records nothing.
        let threshold = if fraction >= 1.0 { u64::MAX } else { (fraction.max(0.0) * 2_f64.powi(63)) as u64 };
        Self { sink, clock, threshold, seeds, drawn: AtomicU64::new(0) }
    }

    /// The next number of the sequence that belongs to a seed; never 0.
    fn draw(&self, seed: usize) -> u64 {
        let n = self.drawn.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        rng::mix(self.seeds[seed].wrapping_add(n.wrapping_mul(rng::STEP))).max(1)
    }

    fn span_id(&self) -> SpanId {
        SpanId(self.draw(0).to_be_bytes())
    }

    /// A new trace, sampled or not.
    fn begin(&self) -> SpanContext {
        let (high, low) = (self.draw(0), self.draw(1));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&high.to_be_bytes());
        id[8..].copy_from_slice(&low.to_be_bytes());
        let sampled = self.threshold == u64::MAX || low >> 1 < self.threshold;
        SpanContext::new(TraceId(id), self.span_id(), sampled)
    }
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Recorder").field("threshold", &self.threshold).finish_non_exhaustive()
    }
}

/// Begins spans where something begins. Clones share the recorder; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Tracer(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Whether there is a recorder, so that nobody locks who asks in vain.
    on: AtomicBool,
    recorder: RwLock<Option<Arc<Recorder>>>,
}

impl Tracer {
    /// Spans that begin from now on go to `recorder`, or nowhere. Those under way end where they began.
    pub fn install(&self, recorder: Option<Recorder>) {
        let mut slot = self.0.recorder.write().unwrap_or_else(PoisonError::into_inner);
        self.0.on.store(recorder.is_some(), Ordering::Release);
        *slot = recorder.map(Arc::new);
    }

    fn recorder(&self) -> Option<Arc<Recorder>> {
        if !self.0.on.load(Ordering::Acquire) {
            return None;
        }
        self.0.recorder.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Begins a trace.
    pub fn start(&self, name: &'static str) -> Span {
        self.continued(None, SpanKind::Internal, || Cow::Borrowed(name))
    }

    /// Begins a span of a trace that another program began, or a trace when there is none. `name` is asked for a span that
    /// is recorded.
    pub fn continued(
        &self,
        parent: Option<SpanContext>,
        kind: SpanKind,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let Some(recorder) = self.recorder() else {
            let link = parent.map(|context| Arc::new(Linked { context, recorder: None, to_wall_ns: 0 }));
            return Span { link: Link(link), data: None };
        };
        let monotonic_ns = recorder.clock.monotonic().as_nanos() as i64;
        let to_wall_ns = recorder.clock.now_ms().saturating_mul(1_000_000).saturating_sub(monotonic_ns);
        let context = match &parent {
            Some(parent) => {
                let mut context = parent.with_span(recorder.span_id());
                context.set_sampled(parent.is_sampled());
                context
            }
            None => recorder.begin(),
        };
        let linked = Linked { context, recorder: Some(recorder), to_wall_ns };
        let parent = parent.map(|p| (p.span_id, p.remote));
        let data = linked.is_recording().then(|| linked.data(parent, kind, name()));
        Span { link: Link(Some(Arc::new(linked))), data }
    }
}

struct Linked {
    context: SpanContext,
    /// Absent where a context is only handed on.
    recorder: Option<Arc<Recorder>>,
    /// Added to the monotonic time. One trace keeps to one measure, so that its spans stay within each other.
    to_wall_ns: i64,
}

impl Linked {
    fn is_recording(&self) -> bool {
        self.recorder.is_some() && self.context.is_sampled()
    }

    fn now_ns(&self) -> u64 {
        let monotonic = self.recorder.as_ref().map_or(0, |r| r.clock.monotonic().as_nanos() as i64);
        monotonic.saturating_add(self.to_wall_ns).max(0) as u64
    }

    fn data(&self, parent: Option<(SpanId, bool)>, kind: SpanKind, name: Cow<'static, str>) -> Box<SpanData> {
        Box::new(SpanData {
            context: self.context.clone(),
            parent: parent.map(|(id, _)| id),
            parent_is_remote: parent.is_some_and(|(_, remote)| remote),
            name,
            kind,
            start_ns: self.now_ns(),
            end_ns: 0,
            attributes: Vec::new(),
            events: Vec::new(),
            failure: None,
        })
    }
}

/// A place in a trace, below which spans may begin. Cheap to clone; may outlive its span.
#[derive(Clone, Default)]
pub struct Link(Option<Arc<Linked>>);

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Link").field(&self.context()).finish()
    }
}

impl Link {
    /// The identity that is handed on to others, if there is a trace.
    #[must_use]
    pub fn context(&self) -> Option<&SpanContext> {
        self.0.as_ref().map(|l| &l.context)
    }

    /// Begins a span here.
    pub fn child(&self, name: &'static str, kind: SpanKind) -> Span {
        let Some(linked) = self.0.as_ref().filter(|l| l.is_recording()) else {
            return Span { link: self.clone(), data: None };
        };
        let span_id = linked.recorder.as_ref().map_or(SpanId::default(), |r| r.span_id());
        let child = Linked {
            context: linked.context.with_span(span_id),
            recorder: linked.recorder.clone(),
            to_wall_ns: linked.to_wall_ns,
        };
        let data = child.data(Some((linked.context.span_id, false)), kind, Cow::Borrowed(name));
        Span { link: Link(Some(Arc::new(child))), data: Some(data) }
    }

    /// Makes this the thread's current place until the answer is dropped.
    #[must_use]
    pub fn enter(&self) -> Entered {
        Entered { before: CURRENT.replace(self.clone()), _of_this_thread: PhantomData }
    }
}

thread_local! {
    static CURRENT: RefCell<Link> = const { RefCell::new(Link(None)) };
}

/// The thread's current place, to be taken along to another thread.
#[must_use]
pub fn current() -> Link {
    CURRENT.with_borrow(Link::clone)
}

/// Begins a span below the current one.
pub fn child(name: &'static str) -> Span {
    CURRENT.with_borrow(|link| link.child(name, SpanKind::Internal))
}

/// Like [`child`], of a request to someone else.
pub fn client(name: &'static str) -> Span {
    CURRENT.with_borrow(|link| link.child(name, SpanKind::Client))
}

/// The place before is current again when this is dropped.
pub struct Entered {
    before: Link,
    _of_this_thread: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(std::mem::take(&mut self.before));
    }
}

/// Runs a future with `link` as the current place, whichever thread it runs on.
pub async fn within<F: Future>(link: Link, future: F) -> F::Output {
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| {
        let _entered = link.enter();
        future.as_mut().poll(cx)
    })
    .await
}

/// Something that takes time; it ends when it is dropped.
#[derive(Debug, Default)]
#[must_use = "a span ends when it is dropped"]
pub struct Span {
    link: Link,
    /// Absent when nothing is recorded.
    data: Option<Box<SpanData>>,
}

impl Span {
    /// Whether anybody will see what is set here. What costs something to compute is best computed behind this.
    #[must_use]
    pub fn is_recording(&self) -> bool {
        self.data.is_some()
    }

    /// The place of this span in its trace.
    #[must_use]
    pub fn link(&self) -> Link {
        self.link.clone()
    }

    /// Makes this span the thread's current one until the answer is dropped.
    #[must_use]
    pub fn enter(&self) -> Entered {
        self.link.enter()
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<AttributeValue>) {
        let Some(data) = &mut self.data else { return };
        let value = value.into();
        match data.attributes.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => data.attributes.push((key, value)),
        }
    }

    /// Lets the span begin at another moment.
    pub fn set_start_ms(&mut self, start_ms: i64) {
        if let Some(data) = &mut self.data {
            data.start_ns = start_ms.max(0).unsigned_abs().saturating_mul(1_000_000);
        }
    }

    /// Notes an error that happened on the way.
    pub fn note_error(&mut self, error: &dyn std::fmt::Display) {
        let Some(data) = &mut self.data else { return };
        let time_ns = self.link.0.as_ref().map_or(0, |l| l.now_ns());
        let attributes = vec![("exception.message", error.to_string().into())];
        data.events.push(SpanEvent { time_ns, name: "exception", attributes });
    }

    /// Marks the span as failed.
    pub fn set_failed(&mut self, reason: &dyn std::fmt::Display) {
        if let Some(data) = &mut self.data {
            data.failure = Some(reason.to_string());
        }
    }

    /// Notes the error and marks the span as failed for it.
    pub fn fail(&mut self, error: &dyn std::fmt::Display) {
        self.note_error(error);
        self.set_failed(error);
    }

    /// Notes the error of a result, if it is one.
    pub fn fail_if_err<T, E: std::fmt::Display>(&mut self, result: &Result<T, E>) {
        if let Err(e) = result {
            self.fail(e);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let (Some(mut data), Some(linked)) = (self.data.take(), &self.link.0) else { return };
        data.end_ns = linked.now_ns().max(data.start_ns);
        if let Some(recorder) = &linked.recorder {
            recorder.sink.take(*data);
        }
    }
}

/// Keeps spans in memory, for tests.
#[derive(Debug, Default)]
pub struct MemorySink(std::sync::Mutex<Vec<SpanData>>);

impl MemorySink {
    /// A tracer that records everything into the sink.
    #[must_use]
    pub fn tracer(self: &Arc<Self>, clock: Arc<dyn Clock>) -> Tracer {
        let tracer = Tracer::default();
        tracer.install(Some(Recorder::new(self.clone(), clock, 1.0, [1, 2])));
        tracer
    }

    /// The spans that ended since the last call, in the order of their ends.
    #[must_use]
    pub fn taken(&self) -> Vec<SpanData> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The spans that ended since the last call, each as the path of names from the first one, sorted.
    #[must_use]
    pub fn paths(&self) -> Vec<String> {
        let spans = self.taken();
        let path = |span: &SpanData| {
            let parent_of = |span: &SpanData| spans.iter().find(|s| Some(s.context.span_id) == span.parent);
            let mut names = vec![span.name.to_string()];
            let mut parent = parent_of(span);
            while let Some(above) = parent {
                names.push(above.name.to_string());
                parent = parent_of(above);
            }
            names.reverse();
            names.join(" > ")
        };
        let mut paths: Vec<String> = spans.iter().map(path).collect();
        paths.sort_unstable();
        paths
    }
}

impl SpanSink for MemorySink {
    fn take(&self, span: SpanData) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(span);
    }
}

#[cfg(test)]
mod tests;
