//! The logins of paused lanes: whether credentials and configuration are right again is found out without mail.

use std::{sync::Arc, time::Duration};

use tokio::task::JoinSet;

use super::{setup::Built, shared::DeliveryContext};
use crate::{
    mail::{outcome::ObstacleKind, reply::Reply},
    route::ConnectorName,
};

/// One login.
const LOGIN: Duration = Duration::from_mins(1);

/// Tries the login of the paused lanes whose time has come.
pub(super) fn log_in(logins: &mut JoinSet<()>, shared: &Arc<DeliveryContext>, built: &Built) {
    for name in shared.lanes.logins() {
        let Some((_, connector)) = built.connectors.get(&name) else {
            continue;
        };
        let connector = Arc::clone(connector);
        let shared = Arc::clone(shared);
        logins.spawn(async move {
            let mut watch = LoginWatch {
                shared,
                name,
                result: Err(Reply::new(451, (4, 3, 0), "the login broke off")),
            };
            let deadline = tokio::time::Instant::now().into_std() + LOGIN;
            let probe = connector.probe(deadline);
            let result = match tokio::time::timeout_at((deadline + LOGIN).into(), probe).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(obstacle)) if obstacle.kind == ObstacleKind::Throttled => Ok(()),
                Ok(Err(obstacle)) => Err(obstacle.reply),
                Err(_) => Err(Reply::new(451, (4, 4, 2), "the login did not come back")),
            };
            watch.result = result;
        });
    }
}

/// Tells the lane what its login came to, also when the connector panics.
struct LoginWatch {
    shared: Arc<DeliveryContext>,
    name: ConnectorName,
    result: Result<(), Reply>,
}

impl Drop for LoginWatch {
    fn drop(&mut self) {
        let result = std::mem::replace(&mut self.result, Ok(()));
        self.shared.lanes.logged_in(&self.name, result);
    }
}
