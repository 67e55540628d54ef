//! SQLSTATEs of a connection, read off the wire: Diesel hands on the words of an error, which depend on the server's
//! language, and not its code. What is what: PostgreSQL's manual, "PostgreSQL Error Codes".

use std::fmt;
use std::future::Future;
use std::io::{self, IoSlice};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// What is kept of an error's message: severity and code come first.
const KEPT: usize = 128;
/// The tag and the length of a message.
const HEADER: usize = 5;

/// The code of an error: a class of two characters, and three more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SqlState([u8; 5]);

impl SqlState {
    /// A lock did not come free within `lock_timeout`.
    pub const LOCK_NOT_AVAILABLE: Self = Self(*b"55P03");

    /// Reads five letters or digits.
    pub fn parse(code: &[u8]) -> Option<Self> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter().all(u8::is_ascii_alphanumeric).then_some(Self(code))
    }

    /// The class: its first two characters.
    pub const fn class(self) -> [u8; 2] {
        [self.0[0], self.0[1]]
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

/// The code of the last error that came over a connection.
#[derive(Clone, Default)]
pub(in crate::db) struct LastState(Arc<AtomicU64>);

impl LastState {
    fn set(&self, SqlState([a, b, c, d, e]): SqlState) {
        self.0.store(u64::from_be_bytes([1, 0, 0, a, b, c, d, e]), Ordering::Release);
    }

    /// The code, and forgets it. `None`: no error since, or the connection is not listened to.
    pub fn take(&self) -> Option<SqlState> {
        let [known, _, _, a, b, c, d, e] = self.0.swap(0, Ordering::AcqRel).to_be_bytes();
        (known == 1).then_some(SqlState([a, b, c, d, e]))
    }
}

/// Follows the messages of a server and notes the code of each error. Anything else is skipped by its length.
struct Scanner {
    header: [u8; HEADER],
    have: usize,
    left: usize,
    error: Option<Vec<u8>>,
    last: LastState,
}

impl Scanner {
    const fn new(last: LastState) -> Self {
        Self { header: [0; HEADER], have: 0, left: 0, error: None, last }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.have < HEADER {
                let n = bytes.len().min(HEADER - self.have);
                self.header[self.have..self.have + n].copy_from_slice(&bytes[..n]);
                self.have += n;
                bytes = &bytes[n..];
                if self.have < HEADER {
                    return;
                }
                let [tag, length @ ..] = self.header;
                // The length counts itself.
                self.left = (u32::from_be_bytes(length) as usize).saturating_sub(length.len());
                self.error = (tag == b'E').then(Vec::new);
            }
            let n = bytes.len().min(self.left);
            if let Some(error) = &mut self.error {
                error.extend_from_slice(&bytes[..n.min(KEPT - error.len())]);
            }
            self.left -= n;
            bytes = &bytes[n..];
            if self.left == 0 {
                self.have = 0;
                if let Some(code) = self.error.take().as_deref().and_then(code) {
                    self.last.set(code);
                }
            }
        }
    }
}

/// The code in the body of an ErrorResponse: fields of a letter and a text that ends with NUL.
fn code(body: &[u8]) -> Option<SqlState> {
    body.split(|b| *b == 0).find_map(|field| SqlState::parse(field.strip_prefix(b"C")?))
}

/// A stream whose errors are noted as they pass.
pub(in crate::db) struct Listened<S> {
    inner: S,
    scanner: Scanner,
}

impl<S> Listened<S> {
    pub const fn new(inner: S, last: LastState) -> Self {
        Self { inner, scanner: Scanner::new(last) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Listened<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buf))?;
        this.scanner.take(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Listened<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl<S: TlsStream + Unpin> TlsStream for Listened<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.inner.channel_binding()
    }
}

/// A connector whose streams are listened to, inside the encryption.
#[derive(Clone)]
pub(in crate::db) struct Listening<T> {
    pub connector: T,
    pub last: LastState,
}

impl<T: MakeTlsConnect<Socket>> MakeTlsConnect<Socket> for Listening<T>
where
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send + 'static,
{
    type Stream = Listened<T::Stream>;
    type TlsConnect = Listening<T::TlsConnect>;
    type Error = T::Error;

    fn make_tls_connect(&mut self, domain: &str) -> Result<Self::TlsConnect, Self::Error> {
        let connector = self.connector.make_tls_connect(domain)?;
        Ok(Listening { connector, last: self.last.clone() })
    }
}

impl<T: TlsConnect<Socket>> TlsConnect<Socket> for Listening<T>
where
    T::Future: Send + 'static,
{
    type Stream = Listened<T::Stream>;
    type Error = T::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Self::Error>> + Send>>;

    fn connect(self, stream: Socket) -> Self::Future {
        let Self { connector, last } = self;
        let connecting = connector.connect(stream);
        Box::pin(async move { Ok(Listened::new(connecting.await?, last)) })
    }
}

/// A connector that encrypts nothing: the way to a listened stream where TLS is not used.
///
/// The driver hands its socket to a connector only when TLS is asked for, so the caller asks for it with direct
/// negotiation, of which the server hears nothing.
#[derive(Clone)]
pub(in crate::db) struct Plainly;

/// A socket as it is.
pub(in crate::db) struct Bare(Socket);

impl MakeTlsConnect<Socket> for Plainly {
    type Stream = Bare;
    type TlsConnect = Self;
    type Error = io::Error;

    fn make_tls_connect(&mut self, _: &str) -> io::Result<Self> {
        Ok(Self)
    }
}

impl TlsConnect<Socket> for Plainly {
    type Stream = Bare;
    type Error = io::Error;
    type Future = std::future::Ready<io::Result<Bare>>;

    fn connect(self, stream: Socket) -> Self::Future {
        std::future::ready(Ok(Bare(stream)))
    }
}

impl AsyncRead for Bare {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Bare {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

impl TlsStream for Bare {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

/// Opens the local socket of a server that listens in a directory.
pub(in crate::db) async fn local(dir: &Path, port: u16) -> io::Result<tokio::net::UnixStream> {
    tokio::net::UnixStream::connect(dir.join(format!(".s.PGSQL.{port}"))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    #[test]
    fn a_code_is_found_however_its_message_is_cut() {
        let stream = [
            message(b'D', b"C40P01\0 is data"),
            message(b'I', b""),
            message(b'E', b"SFEHLER\0VERROR\0C54000\0MIndexzeile zu gro\xc3\x9f\0\0"),
            message(b'Z', b"I"),
        ]
        .concat();
        for piece in 1..=stream.len() {
            let last = LastState::default();
            let mut scanner = Scanner::new(last.clone());
            stream.chunks(piece).for_each(|bytes| scanner.take(bytes));
            assert_eq!(last.take(), SqlState::parse(b"54000"), "in pieces of {piece}");
            assert_eq!(last.take(), None, "it is told once");
        }
    }

    #[test]
    fn what_is_no_code_is_none() {
        for body in [&b"SERROR\0\0"[..], b"C400\0", b"C40-01\0", b""] {
            let last = LastState::default();
            Scanner::new(last.clone()).take(&message(b'E', body));
            assert_eq!(last.take(), None);
        }
    }
}
