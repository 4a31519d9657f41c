//! A TCP proxy that can lose connections and answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;

/// What the proxy does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Mode {
    /// Passes everything on.
    Forward = 0,
    /// Closes new connections at once and breaks those that are open.
    Refuse = 1,
    /// Passes requests on, and breaks the connection where an answer begins.
    LoseAnswers = 2,
    /// Passes nothing on until the mode changes: a network that is cut, whose
    /// ends send again what was lost.
    Hold = 3,
}

/// A proxy on a free port of loopback; stops taking connections when dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    state: Arc<State>,
    address: SocketAddr,
}

#[derive(Debug)]
struct State {
    mode: AtomicU8,
    stopped: AtomicBool,
    /// Answers that were lost on purpose.
    lost: AtomicU64,
    to: SocketAddr,
}

/// How often an idle connection looks whether the mode has changed.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

impl Proxy {
    /// Passes connections on to `to`.
    pub(crate) fn start(to: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            mode: AtomicU8::new(Mode::Forward as u8),
            stopped: AtomicBool::new(false),
            lost: AtomicU64::new(0),
            to,
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || accept(&listener, &shared));
        Ok(Self { state, address })
    }

    /// `http://127.0.0.1:PORT` of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what happens from now on, to open connections too.
    pub(crate) fn set(&self, mode: Mode) {
        self.state.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Answers lost on purpose so far.
    pub(crate) fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread, so that it sees the stop.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    fn is(&self, mode: Mode) -> bool {
        self.mode.load(Ordering::SeqCst) == mode as u8
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for incoming in listener.incoming() {
        if state.stopped.load(Ordering::SeqCst) {
            return;
        }
        let (Ok(near), false) = (incoming, state.is(Mode::Refuse)) else { continue };
        let Ok(far) = TcpStream::connect(state.to) else { continue };
        for (from, to, answers) in [(&near, &far, false), (&far, &near, true)] {
            let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
            let state = Arc::clone(state);
            std::thread::spawn(move || copy(from, to, answers, &state));
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, answers: bool, state: &State) {
    let mut buffer = vec![0; 64 << 10];
    let _ = from.set_read_timeout(Some(LOOK_AGAIN));
    loop {
        let read = from.read(&mut buffer);
        if state.stopped.load(Ordering::SeqCst) || state.is(Mode::Refuse) {
            break;
        }
        while state.is(Mode::Hold) && !state.stopped.load(Ordering::SeqCst) {
            std::thread::sleep(LOOK_AGAIN);
        }
        let count = match read {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if is_timeout(&error) => continue,
            Err(_) => break,
        };
        if answers && state.is(Mode::LoseAnswers) {
            state.lost.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

fn is_timeout(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each line with its length.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut buffer = [0; 16];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        let _ = stream.write_all(&[count as u8]);
                    }
                });
            }
        });
        address
    }

    fn ask(proxy: &Proxy) -> std::io::Result<u8> {
        let mut stream = TcpStream::connect(proxy.address)?;
        stream.write_all(b"abc")?;
        let mut answer = [0];
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn each_mode_does_as_it_says() {
        let proxy = Proxy::start(echo()).unwrap();
        assert_eq!(ask(&proxy).unwrap(), 3);
        proxy.set(Mode::LoseAnswers);
        ask(&proxy).unwrap_err();
        assert_eq!(proxy.lost(), 1);
        proxy.set(Mode::Refuse);
        ask(&proxy).unwrap_err();
        assert_eq!(proxy.lost(), 1);
        proxy.set(Mode::Hold);
        let mut held = TcpStream::connect(proxy.address).unwrap();
        held.write_all(b"ab").unwrap();
        held.set_read_timeout(Some(2 * LOOK_AGAIN)).unwrap();
        assert!(is_timeout(&held.read(&mut [0]).unwrap_err()));
        proxy.set(Mode::Forward);
        held.set_read_timeout(None).unwrap();
        let mut answer = [0];
        held.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [2], "what was held arrives");
        assert_eq!(ask(&proxy).unwrap(), 3);
    }
}
