//! Deep expressions: recursive work on them runs on a thread whose stack is made for their height, so that it depends on
//! the caller's stack no more than shallow ones do.

use crate::error::QueryError;
use crate::parser::Expr;

/// Higher trees get a thread of their own.
const LEVELS_ON_CALLERS_STACK: usize = 200;
/// What one level may take, planning, evaluation and dropping alike: several times what was seen in unoptimised builds.
const BYTES_PER_LEVEL: usize = 16 << 10;

/// Runs `work`, which goes down `expr` recursively.
///
/// # Errors
/// When the thread for a deep expression cannot be started, or the work on it panics.
pub fn run_deep<R: Send>(expr: &Expr, work: impl FnOnce() -> R + Send) -> Result<R, QueryError> {
    let levels = expr.levels();
    if levels <= LEVELS_ON_CALLERS_STACK {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("deep-expression".into())
            .stack_size(levels * BYTES_PER_LEVEL)
            .spawn_scoped(scope, work)
            .map_err(|e| {
                QueryError::Execution(format!(
                    "no thread for an expression that is {levels} levels deep: {e}"
                ))
            })?;
        thread.join().map_err(|_| QueryError::execution("unexpected error: a thread of the query failed"))
    })
}
