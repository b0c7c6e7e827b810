//! Reading request bodies within limits: of one request, and of all of them together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A body, and its share of the bytes that all bodies together may have.
pub(crate) struct HeldBytes {
    pub(crate) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Why a body was not read.
pub(crate) enum BodyError {
    TooLarge,
    Crowded,
    Broken(hyper::Error),
}

/// Reads a body. A slow sender holds no more than what it has sent.
pub(crate) async fn collect(
    mut body: Incoming,
    limit: usize,
    free: &Arc<Semaphore>,
) -> Result<HeldBytes, BodyError> {
    use hyper::body::Body as _;
    if body.size_hint().lower() > limit as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut out = BytesMut::new();
    let mut share: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(BodyError::Broken)?.into_data() else {
            continue;
        };
        if out.len() + data.len() > limit {
            return Err(BodyError::TooLarge);
        }
        let n = u32::try_from(data.len()).map_err(|_| BodyError::TooLarge)?;
        let more = free.clone().try_acquire_many_owned(n).map_err(|_| BodyError::Crowded)?;
        match &mut share {
            Some(share) => share.merge(more),
            None => share = Some(more),
        }
        if out.is_empty() && body.is_end_stream() {
            return Ok(HeldBytes { bytes: data, _share: share });
        }
        out.extend_from_slice(&data);
    }
    Ok(HeldBytes { bytes: out.freeze(), _share: share })
}
