//! The registry against its rules, and against a model.

use proptest::prelude::*;
use tokio::io::duplex;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role as WsRole};
use tunnel_frame::{Pulse, Role, Session, session, websocket_config};

use super::*;

fn user(name: &str) -> UserId {
    UserId::new("test", name).unwrap()
}

fn registry(tunnels: usize) -> Arc<Registry> {
    Arc::new(Registry::new(RegistryLimits { tunnels, streams: 2 }))
}

/// An instance whose process started at this second.
fn instance(second: u64) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(second * 1000, &[0; 10]).into_uuid()
}

/// A session whose other end is silent; its driver does not run unless a test runs it.
async fn silent_session() -> (Session, impl Future<Output = ()>) {
    let (here, there) = duplex(64);
    let ws = WebSocketStream::from_raw_socket(Pulse::new(here), WsRole::Server, Some(websocket_config())).await;
    let (session, driver) = session(ws, Role::Server);
    (session, async move {
        let _there = there;
        _ = driver.run(|_| ()).await;
    })
}

async fn tunnel(of: &UserId, name: &str, started: u64) -> Tunnel {
    let (session, _) = silent_session().await;
    Tunnel::new(of.clone(), name.into(), instance(started), "test".into(), session)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

#[tokio::test]
async fn the_process_that_started_last_is_chosen_and_a_reconnect_does_not_change_that() {
    let (registry, alice) = (registry(8), user("alice"));
    let old = registry.admit(tunnel(&alice, "old", 1).await).unwrap();
    let _new = registry.admit(tunnel(&alice, "new", 2).await).unwrap();
    let chosen = |name| {
        let (registry, alice) = (Arc::clone(&registry), alice.clone());
        async move { registry.find(&alice, name, soon()).await.map(|tunnel| tunnel.name.to_string()) }
    };
    assert_eq!(chosen(None).await.unwrap(), "new");
    drop(old);
    let _old = registry.admit(tunnel(&alice, "old", 1).await).unwrap();
    assert_eq!(chosen(None).await.unwrap(), "new");
    assert_eq!(chosen(Some("old")).await.unwrap(), "old");
    assert!(chosen(Some("other")).await.is_err());
}

#[tokio::test]
async fn t36_a_user_sees_no_tunnel_of_another() {
    let registry = registry(8);
    let _admitted = registry.admit(tunnel(&user("alice"), "desk", 1).await).unwrap();
    let mallory = UserId::new("elsewhere", "alice").unwrap();
    assert!(registry.list(&mallory).0.is_empty());
    assert!(registry.list(&user("Alice")).0.is_empty());
    assert_eq!(registry.list(&user("alice")).0.len(), 1);
}

#[tokio::test]
async fn t42_a_reconnect_replaces_its_predecessor_whose_late_removal_changes_nothing() {
    let (registry, alice) = (registry(8), user("alice"));
    let first = registry.admit(tunnel(&alice, "desk", 1).await).unwrap();
    let second = registry.admit(tunnel(&alice, "desk", 1).await).unwrap();
    assert!(first.tunnel().replaced.is_cancelled() && !first.tunnel().takes_requests());
    drop(first);
    assert_eq!(registry.find(&alice, None, soon()).await.unwrap().id, second.tunnel().id);
}

#[tokio::test]
async fn a_rival_of_the_same_name_is_refused_while_the_first_lives() {
    let (registry, alice) = (registry(8), user("alice"));
    let _first = registry.admit(tunnel(&alice, "desk", 1).await).unwrap();
    assert_eq!(registry.admit(tunnel(&alice, "desk", 2).await).unwrap_err(), AdmitError::NameInUse);
}

#[tokio::test(start_paused = true)]
async fn a_rival_takes_the_place_of_one_that_gives_no_sign_of_life() {
    let (registry, alice) = (registry(8), user("alice"));
    let (session, driver) = silent_session().await;
    let driver = tokio::spawn(driver);
    let first = Tunnel::new(alice.clone(), "desk".into(), instance(1), "test".into(), session);
    let first = registry.admit(first).unwrap();
    registry.may_admit(&alice, "desk", instance(2)).await.unwrap();
    assert!(first.tunnel().replaced.is_cancelled());
    assert!(registry.admit(tunnel(&alice, "desk", 2).await).is_ok());
    driver.abort();
}

#[tokio::test]
async fn t49_tunnels_and_streams_of_a_user_are_counted() {
    let (registry, alice) = (registry(2), user("alice"));
    let _a = registry.admit(tunnel(&alice, "a", 1).await).unwrap();
    let b = registry.admit(tunnel(&alice, "b", 2).await).unwrap();
    assert_eq!(registry.admit(tunnel(&alice, "c", 3).await).unwrap_err(), AdmitError::TunnelLimit);
    assert!(registry.admit(tunnel(&user("bob"), "c", 3).await).is_ok());
    b.tunnel().drain(); // one that drains does not count
    assert!(registry.admit(tunnel(&alice, "c", 3).await).is_ok());
    let _one = registry.admit_stream(&alice).unwrap();
    let two = registry.admit_stream(&alice).unwrap();
    assert!(registry.admit_stream(&alice).is_err());
    drop(two);
    assert!(registry.admit_stream(&alice).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_lost_a_moment_ago_is_waited_for() {
    let (registry, alice) = (registry(8), user("alice"));
    drop(registry.admit(tunnel(&alice, "desk", 1).await).unwrap());
    let waiting = tokio::spawn({
        let (registry, alice) = (Arc::clone(&registry), alice.clone());
        async move { registry.find(&alice, None, soon()).await.map(|tunnel| tunnel.id) }
    });
    sleep(Duration::from_secs(1)).await;
    let back = registry.admit(tunnel(&alice, "desk", 1).await).unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(back.tunnel().id));
    assert!(registry.lock().awaited.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_and_an_old_loss_is_not_waited_for() {
    let (registry, alice) = (registry(8), user("alice"));
    drop(registry.admit(tunnel(&alice, "desk", 1).await).unwrap());
    let start = Instant::now();
    assert!(registry.find(&alice, None, soon()).await.unwrap_err().since.is_some());
    assert_eq!(start.elapsed(), WAIT_FOR_RETURN);
    sleep(LOST_LATELY).await;
    let start = Instant::now();
    assert!(registry.find(&alice, None, soon()).await.is_err());
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(registry.lock().awaited.is_empty());
}

/// What may happen to a registry.
#[derive(Debug, Clone)]
enum Step {
    Connect { user: usize, name: usize, started: u64 },
    Leave(prop::sample::Index),
    Drain(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let connect =
        (0..2_usize, 0..3_usize, 1..4_u64).prop_map(|(user, name, started)| Step::Connect { user, name, started });
    let any = any::<prop::sample::Index>;
    prop::collection::vec(
        prop_oneof![3 => connect, 1 => any().prop_map(Step::Leave), 1 => any().prop_map(Step::Drain)],
        1..40,
    )
}

/// What the registry should know of one tunnel.
struct Known {
    admitted: Admitted,
    user: usize,
    name: usize,
    started: u64,
    active: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// After any history, the choice is the active tunnel of that user whose process started last, names are unique
    /// among the active, and the limits hold.
    #[test]
    fn any_history_leaves_what_the_rules_say(steps in steps()) {
        const TUNNELS: usize = 2;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let registry = registry(TUNNELS);
            let users = [user("alice"), user("bob")];
            let names = ["a", "b", "c"];
            let mut known: Vec<Known> = Vec::new();
            for step in steps {
                match step {
                    Step::Connect { user, name, started } => {
                        let mine = |k: &&mut Known| k.user == user && k.active;
                        let count = known.iter_mut().filter(mine).count();
                        let same = known.iter_mut().filter(mine).find(|k| k.name == name);
                        let expected = match &same {
                            Some(other) if other.started != started => Err(AdmitError::NameInUse),
                            None if count >= TUNNELS => Err(AdmitError::TunnelLimit),
                            _ => Ok(()),
                        };
                        let result = registry.admit(tunnel(&users[user], names[name], started).await);
                        assert_eq!(result.as_ref().map(|_| ()).map_err(|e| *e), expected);
                        if let Ok(admitted) = result {
                            if let Some(predecessor) = same {
                                predecessor.active = false;
                            }
                            known.push(Known { admitted, user, name, started, active: true });
                        }
                    }
                    Step::Leave(which) if !known.is_empty() => drop(known.swap_remove(which.index(known.len()))),
                    Step::Drain(which) if !known.is_empty() => {
                        let len = known.len();
                        let one = &mut known[which.index(len)];
                        one.admitted.tunnel().drain();
                        one.active = false;
                    }
                    Step::Leave(_) | Step::Drain(_) => {}
                }
                for (index, user) in users.iter().enumerate() {
                    let best = known.iter().filter(|k| k.user == index && k.active).map(|k| k.started).max();
                    let chosen = registry.choose(&registry.lock(), user, None).map(|tunnel| tunnel.instance);
                    assert_eq!(chosen, best.map(instance));
                    let listed = registry.list(user).0;
                    assert_eq!(listed.len(), known.iter().filter(|k| k.user == index && k.active).count());
                }
                assert_eq!(registry.count(), known.len());
            }
        });
    }
}

#[tokio::test]
async fn f04_while_the_server_drains_a_desktop_that_has_gone_elsewhere_serves_who_is_still_here() {
    let (registry, alice) = (registry(8), user("alice"));
    let (session, _driver) = silent_session().await;
    let here = Tunnel::new(alice.clone(), "here".into(), instance(1), "test".into(), session.clone());
    let here = registry.admit(here).unwrap();
    registry.drain();
    assert!(timeout_at(Instant::now(), registry.deserted()).await.is_err());
    here.tunnel().drain();
    registry.deserted().await;
    assert_eq!(registry.find(&alice, None, soon()).await.unwrap().id, here.tunnel().id);
    assert!(registry.find(&alice, Some("other"), soon()).await.is_err());
    drop(here);
    let since = Instant::now();
    assert!(registry.find(&alice, None, soon()).await.is_err());
    assert!(since.elapsed() < WAIT_FOR_RETURN, "nobody comes back to a server that drains");
}
