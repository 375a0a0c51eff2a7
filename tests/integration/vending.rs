//! A caller gets the live token, and the sandbox takes it.

use reqwest::Method;

use crate::harness::{Scale, World};

#[tokio::test]
async fn a_caller_gets_a_token_that_the_issuer_takes() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let reply = daemon.first_token().await;
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "no-store");
    let token = reply.json();
    assert_eq!(token["token_type"], "Bearer");
    assert_eq!(token["suspect"], false);
    assert!(token["expires_in"].as_u64().unwrap() <= 3600);
    assert_eq!(world.sandbox.spend(&reply.access_token()).status(), 200);

    let text = daemon.get("/v1/token", &[("accept", "text/plain")]).await;
    assert_eq!(
        (text.text.as_str(), text.header("vary")),
        (reply.access_token().as_str(), "accept")
    );
    assert_eq!(world.sandbox.mints(), 1, "reads cost nothing");
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_unix_socket_gives_the_same_answer() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let over_tcp = daemon.first_token().await;
    let client = reqwest::Client::builder()
        .unix_socket(daemon.socket.as_str())
        .build()
        .unwrap();
    let request = client
        .get("http://localhost/v1/token")
        .header("x-bearerd-request", "true");
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["etag"], over_tcp.headers["etag"]);
    assert!(daemon.stop().await.success());
    assert!(
        !world.path("state.sock").exists(),
        "the socket goes with the daemon"
    );
    world.finish();
}

#[tokio::test]
async fn a_browser_or_a_proxy_gets_nothing() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    daemon.first_token().await;
    for (headers, status) in [
        (vec![("x-bearerd-request", "no")], 403),
        (vec![("x-forwarded-for", "10.0.0.1")], 403),
        (vec![("forwarded", "for=10.0.0.1")], 403),
        (vec![("via", "1.1 proxy")], 403),
        (vec![("origin", "http://evil.example")], 403),
        (vec![("sec-fetch-site", "cross-site")], 403),
        (vec![("host", "evil.example")], 403),
    ] {
        let reply = daemon.get("/v1/token", &headers).await;
        assert_eq!(reply.status, status, "{headers:?}: {}", reply.text);
        assert!(!reply.problem().is_empty());
    }
    for path in ["/v1/token/", "/v1//token", "/v1/%74oken", "/V1/token", "/"] {
        assert_eq!(daemon.get(path, &[]).await.status, 404, "{path}");
    }
    assert!(
        daemon
            .metric("bearerd_callers_refused_total{reason=\"foreign_host\"}")
            .await
            >= 1.0
    );
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn a_reported_token_is_vended_as_suspect_until_its_successor_is_there() {
    let mut scale = Scale::still();
    // A token is too young to be refused for a 180th of this: ten seconds, for slow machines.
    scale.lifetime = std::time::Duration::from_secs(1800);
    // Reports lead to mints a sixth of this apart.
    scale.window = std::time::Duration::from_secs(600);
    scale.in_flight = std::time::Duration::from_secs(5);
    scale.timeout = std::time::Duration::from_secs(2);
    // A new record keeps a part of the period between its mints: less than a second.
    scale.limit = 1000;
    let world = World::new(scale).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let generation = first.generation();
    let report = |generation: u64, status: u16| {
        format!(r#"{{"generation":{generation},"status":{status}}}"#)
    };

    let young = daemon.report(&report(generation, 401)).await;
    assert_eq!(
        (young.status, young.json()["outcome"].as_str()),
        (202, Some("too_young"))
    );
    assert_eq!(
        daemon.report(&report(generation - 1, 401)).await.json()["outcome"],
        "stale_generation"
    );
    assert_eq!(
        daemon.report(&report(generation, 403)).await.json()["outcome"],
        "not_a_refusal"
    );

    let gate = world.sandbox.hold_mints();
    let once_old_enough = async |generation: u64| {
        loop {
            let told = daemon.report(&report(generation, 401)).await.json();
            if told["outcome"] != "too_young" {
                return told["outcome"].clone();
            }
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    };
    assert_eq!(once_old_enough(generation).await, "refreshing");
    let suspect = daemon.token().await;
    assert_eq!(
        (suspect.generation(), &suspect.json()["suspect"]),
        (generation, &true.into())
    );
    gate.open();
    let second = daemon.next_token(&suspect).await;
    assert_eq!(second.json()["suspect"], false);
    assert_ne!(second.access_token(), first.access_token());

    assert_eq!(once_old_enough(second.generation()).await, "paced");
    assert_eq!(world.sandbox.mints(), 2);
    assert!(daemon.stop().await.success());
    world.finish();
}

#[tokio::test]
async fn an_operator_can_refresh_but_not_faster_than_the_pace() {
    let world = World::new(Scale::still()).await;
    let daemon = world.start().await;
    let first = daemon.first_token().await;
    let refused = daemon.refresh().await;
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (429, "not_now")
    );
    assert!(
        refused.header("retry-after").parse::<u64>().unwrap() > 60,
        "the pace is two minutes"
    );
    let bare = daemon
        .send(
            Method::POST,
            &daemon.admin,
            "/refresh",
            &[("origin", "http://evil.example")],
            None,
        )
        .await
        .unwrap();
    assert_eq!(bare.status, 403);
    assert_eq!(daemon.token().await.generation(), first.generation());
    assert_eq!(world.sandbox.mints(), 1);
    assert!(daemon.stop().await.success());
    world.finish();
}
