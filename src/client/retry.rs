//! Trying again: a node that restarts, or has too much to do, is given time.

use std::time::Duration;

use super::ClientError;

/// Attempts at one request, the first included.
const ATTEMPTS_MAX: u32 = 16;
/// The first pause; each further one is twice as long, up to the longest. Together about a minute: a node is restarted
/// in less.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Repeats a request that is safe to repeat while its error is transient.
pub async fn patiently<T>(mut attempt: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
    let mut pause = PAUSE;
    for _ in 1..ATTEMPTS_MAX {
        match attempt().await {
            Err(error) if error.is_transient() => {
                tracing::debug!(%error, "trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
            answer => return answer,
        }
    }
    attempt().await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16) -> ClientError {
        ClientError::Refused { url: "http://x".into(), status, code: 0, message: "busy".into() }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_may_pass_is_tried_again_and_not_for_ever() {
        let mut attempts = 0;
        let answer = patiently(async || {
            attempts += 1;
            if attempts < 4 { Err(refusal(503)) } else { Ok(attempts) }
        });
        assert_eq!(answer.await.unwrap(), 4);
        for (status, expected) in [(400, 1), (429, ATTEMPTS_MAX)] {
            let mut attempts = 0;
            let answer = patiently(async || {
                attempts += 1;
                Err::<(), _>(refusal(status))
            });
            answer.await.unwrap_err();
            assert_eq!(attempts, expected, "{status}");
        }
    }
}
