//! Response body that is sent in chunks and holds a guard until the last one.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// Maximum size of a chunk, in bytes. Data that the client does not read yet stays here. In the buffers of the connection it
/// would use memory until the connection is closed.
const CHUNK: usize = 16 * 1024;

/// A body that is sent in chunks. It holds the guard until it is dropped: after the last chunk, or when the client disconnects.
pub(super) struct ResponseBody<G> {
    body: Body,
    rest: Bytes,
    _guard: G,
}

impl<G> ResponseBody<G> {
    pub(super) fn new(body: Body, guard: G) -> Self {
        Self { body, rest: Bytes::new(), _guard: guard }
    }
}

impl<G: Unpin> hyper::body::Body for ResponseBody<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(other) => return Poll::Ready(Some(Ok(other))),
                },
                end => return Poll::Ready(end),
            }
        }
        let chunk = self.rest.len().min(CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(chunk)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), u64::try_from(self.rest.len()).unwrap_or(u64::MAX));
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower().saturating_add(rest));
        if let Some(upper) = body.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn long_body_is_sent_in_chunks() {
        let text: Vec<u8> = (0..3 * CHUNK + 5).map(|number| number.to_le_bytes()[0]).collect();
        let mut body = ResponseBody::new(Body::from(text.clone()), ());
        assert_eq!(hyper::body::Body::size_hint(&body).exact(), u64::try_from(text.len()).ok());
        let mut chunks = Vec::new();
        while let Some(frame) = body.frame().await {
            chunks.push(frame.expect("no error").into_data().expect("data"));
        }
        assert_eq!(chunks.iter().map(Bytes::len).collect::<Vec<_>>(), [CHUNK, CHUNK, CHUNK, 5]);
        assert_eq!(chunks.concat(), text);
    }
}
