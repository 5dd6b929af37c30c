//! A lease is renewed while its attempt lives, by a task of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::time::timeout;

use super::Lease;
use crate::leased::LeasedStore;

impl<S: LeasedStore> Lease<S> {
    pub(super) fn keep_renewed(&self) {
        let (store, holder, time) = (self.store.clone(), self.holder.clone(), self.time);
        let (in_step, fenced) = (Arc::clone(&self.in_step), self.fenced.clone());
        let ended = self.ended.clone();
        // Not tracked: it must not hold up a shutdown that waits for work.
        tokio::spawn(async move {
            while ended
                .run_until_cancelled(tokio::time::sleep(time / 3))
                .await
                .is_some()
            {
                if in_step.load(Ordering::SeqCst) {
                    continue;
                }
                // One that hangs is left behind, in its task: the next may come through on another connection.
                let renewing = tokio::spawn({
                    let (store, holder) = (store.clone(), holder.clone());
                    async move { store.renew(&holder, time).await }
                });
                match timeout(time / 3, renewing).await {
                    Ok(Ok(Ok(true))) => {}
                    Ok(Ok(Ok(false))) if ended.is_cancelled() => return,
                    Ok(Ok(Ok(false))) => {
                        tracing::warn!(key = ?holder.key, "lease lost: another attempt has taken over");
                        return fenced.cancel();
                    }
                    // The next third may go better; if none does, the token decides.
                    Ok(Ok(Err(error))) => {
                        tracing::warn!(key = ?holder.key, %error, "lease not renewed");
                    }
                    Ok(Err(_)) | Err(_) => {
                        tracing::warn!(key = ?holder.key, "lease not renewed: no answer");
                    }
                }
            }
        });
    }
}
