//! Idle tunnels: desktops that are connected and asked nothing.

use std::io;

use futures_util::StreamExt;
use tokio::task::JoinSet;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig},
};

use crate::{caller::Target, setup::Stage};

/// Tunnels that stay open, and answer pings, until dropped.
#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    open: JoinSet<()>,
}

impl Tunnels {
    /// Opens as many more, each of another user, one after the other.
    pub(crate) async fn open(&mut self, stage: &Stage, server: &Target, more: usize) -> io::Result<()> {
        for _ in 0..more {
            let token = stage.token(&format!("idle-{}", self.open.len()))?;
            self.open_one(stage, server, &token).await?;
        }
        Ok(())
    }

    /// How many are still open.
    pub(crate) fn len(&mut self) -> usize {
        while self.open.try_join_next().is_some() {}
        self.open.len()
    }

    async fn open_one(&mut self, stage: &Stage, server: &Target, token: &str) -> io::Result<()> {
        let mut request =
            format!("wss://localhost:{}/ws/tunnel", stage.port).into_client_request().map_err(io::Error::other)?;
        let instance = uuid::Uuid::now_v7().to_string();
        for (name, value) in [
            ("authorization", format!("Bearer {token}").as_str()),
            ("sec-websocket-protocol", "tunnel.yamux.v1"),
            ("tunnel-name", "idle"),
            ("tunnel-instance", &instance),
        ] {
            request.headers_mut().insert(name, HeaderValue::from_str(value).map_err(io::Error::other)?);
        }
        let small = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(0);
        let socket = server.dial().await?;
        let (mut tunnel, _) = client_async_with_config(request, socket, Some(small)).await.map_err(io::Error::other)?;
        // Reading is what answers pings.
        self.open.spawn(async move { while let Some(Ok(_)) = tunnel.next().await {} });
        Ok(())
    }
}
