//! Connections: listening, serving each, ending in good order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use esolm::{Error, Result};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};

use super::patient::Patient;
use super::service::{READERS, Service};
use crate::output::tell;
use crate::signals;

/// Most connections at once; more wait to be accepted.
const CONNECTIONS: usize = 512;
/// Longest head of a request in bytes, and most of a body or an answer that lies in memory on its way.
const BUFFER: usize = 1 << 16;
/// How long requests may go on once the server is to end.
const GRACE: Duration = Duration::from_secs(30);
/// How long to wait where the system has no more connections to give.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves until a signal ends it.
pub fn run(address: SocketAddr, service: Service) -> Result<()> {
    let failed = |source| Error::Io { file: address.to_string(), source };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(READERS)
        .build();
    let runtime = runtime.map_err(failed)?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        tell(&format!("model {} at http://{own}/v1", service.name()));
        serve(listener, Arc::new(service)).await;
        Ok(())
    });
    // Tokenizing of a request whose client has left is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(listener: TcpListener, service: Arc<Service>) {
    let end = Arc::new(Notify::new());
    signals::on_end({
        let end = end.clone();
        move || end.notify_one()
    });
    let (ending, is_ending) = watch::channel(false);
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut ended = std::pin::pin!(end.notified());
    loop {
        let accepted = async {
            // It is never closed.
            let place = connections.clone().acquire_owned().await.ok()?;
            Some((listener.accept().await, place))
        };
        let Some(accepted) = either(&mut ended, accepted).await.flatten() else { break };
        let (stream, place) = match accepted {
            (Ok((stream, _)), place) => (stream, place),
            // One that went away, or no more files: later ones may do.
            (Err(_), _) => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (service, is_ending) = (service.clone(), is_ending.clone());
        tokio::spawn(async move {
            connection(stream, &service, is_ending).await;
            drop(place);
        });
    }
    drop(listener);
    tell("ending; requests that run are completed (a second signal ends at once)");
    let _ = ending.send(true);
    drop(is_ending);
    // All connections have let go of their places and of the channel.
    let _ = tokio::time::timeout(GRACE, ending.closed()).await;
}

/// What `work` yields; nothing if `end` comes first.
async fn either<T>(
    end: &mut std::pin::Pin<&mut tokio::sync::futures::Notified<'_>>,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = std::pin::pin!(work);
    std::future::poll_fn(|context| {
        if end.as_mut().poll(context).is_ready() {
            return std::task::Poll::Ready(None);
        }
        work.as_mut().poll(context).map(Some)
    })
    .await
}

/// Serves one connection. When it ends, whatever it waits for is dropped, and its places are free.
async fn connection(stream: TcpStream, service: &Service, mut is_ending: watch::Receiver<bool>) {
    // Pieces of a text are small, and wanted at once.
    let _ = stream.set_nodelay(true);
    let answer = service_fn(|request| service.answer(request));
    let mut settings = http1::Builder::new();
    let patience = service.patience();
    settings.timer(TokioTimer::new()).header_read_timeout(patience[0]).max_buf_size(BUFFER);
    let served = settings.serve_connection(Patient::new(stream, patience), answer);
    let mut served = std::pin::pin!(served);
    let mut ended = std::pin::pin!(is_ending.changed());
    let mut asked = false;
    let result = std::future::poll_fn(|context| {
        if !asked && ended.as_mut().poll(context).is_ready() {
            asked = true;
            served.as_mut().graceful_shutdown();
        }
        served.as_mut().poll(context)
    });
    // A client that breaks off is no news.
    let _ = result.await;
}
