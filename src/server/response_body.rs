//! An answer on its way out.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

/// How many bytes of an answer are handed over at a time. What a client has no room for stays here instead of in
/// buffers that only the end of its connection would free.
const PIECE: usize = 16 * 1024;

/// A body in pieces that keeps something until its last byte has been handed over or nobody wants it any more.
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
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
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
    async fn a_long_body_goes_out_whole_in_pieces() {
        let text: Vec<u8> = (0..3 * PIECE + 5).map(|number| number.to_le_bytes()[0]).collect();
        let mut outgoing = ResponseBody::new(Body::from(text.clone()), ());
        assert_eq!(hyper::body::Body::size_hint(&outgoing).exact(), u64::try_from(text.len()).ok());
        let mut pieces = Vec::new();
        while let Some(frame) = outgoing.frame().await {
            pieces.push(frame.expect("no error").into_data().expect("data"));
        }
        assert_eq!(pieces.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, PIECE, PIECE, 5]);
        assert_eq!(pieces.concat(), text);
    }
}
