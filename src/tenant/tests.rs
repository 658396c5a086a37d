//! Authentication, visibility, and limits with a manual clock.

use std::time::Duration;

use super::*;

fn config(name: &str) -> TenantConfig {
    TenantConfig {
        name: name.to_owned(),
        api_key_sha256: Some(ApiKeyHash::of(&format!("key of {name}"))),
        ..TenantConfig::default()
    }
}

fn tenant(config: TenantConfig) -> Arc<Tenant> {
    let key = format!("key of {}", config.name);
    Tenants::new(&[config]).authenticate(Some(&key)).unwrap()
}

fn sharing(name: &str, namespaces: &[&str]) -> Arc<Tenant> {
    let shared_namespaces = namespaces.iter().map(|name| (*name).to_owned()).collect();
    tenant(TenantConfig { shared_namespaces, ..config(name) })
}

/// Returns the limit and the retry time of an [`Error::Exhausted`].
fn refusal(result: Result<(), Error>) -> (&'static str, Duration) {
    match result.unwrap_err() {
        Error::Exhausted { limit, retry_after } => (limit, retry_after),
        other => panic!("{other:?}"),
    }
}

fn at(seconds: f64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs_f64(seconds)
}

const DAY: f64 = 86_400.0;

#[test]
fn without_tenants_every_caller_is_the_default_tenant() {
    let tenants = Tenants::new(&[]);
    for bearer in [None, Some(""), Some("whatever")] {
        let tenant = tenants.authenticate(bearer).unwrap();
        assert_eq!(tenant.name(), DEFAULT_TENANT);
        assert_eq!(tenant.owner("ns"), Owner::Tenant("default".into()));
        assert!(tenant.check_rate(Instant::now()).is_ok());
        assert!(tenant.check_budget(SystemTime::now()).is_ok());
    }
}

#[test]
fn only_the_key_authenticates_a_tenant() {
    let tenants = Tenants::new(&[config("a"), config("b")]);
    assert_eq!(tenants.authenticate(Some("key of a")).unwrap().name(), "a");
    assert_eq!(tenants.authenticate(Some("key of b")).unwrap().name(), "b");
    let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    for bearer in [None, Some(""), Some("a"), Some("key of a "), Some("Bearer key of a"), Some(hash)] {
        assert!(matches!(tenants.authenticate(bearer), Err(Error::Unauthenticated)), "{bearer:?}");
    }
}

/// A tenant whose key is missing must not become a tenant that every caller is.
#[test]
fn nobody_authenticates_as_a_tenant_without_key() {
    let tenants = Tenants::new(&[TenantConfig { api_key_sha256: None, ..config("a") }]);
    for bearer in [None, Some(""), Some("key of a")] {
        assert!(tenants.authenticate(bearer).is_err());
    }
}

#[test]
fn hashes_equal_those_of_sha256sum() {
    let abc = ApiKeyHash::parse("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(abc, Some(ApiKeyHash::of("abc")));
    let bad = ["", "ba78", &"g".repeat(64), &"é".repeat(32), &format!("+{}", "a".repeat(63))];
    assert!(bad.iter().all(|text| ApiKeyHash::parse(text).is_none()));
}

#[test]
fn tenants_share_a_namespace_only_if_both_list_it() {
    let (a, b, c) = (sharing("a", &["docs"]), sharing("b", &["docs"]), sharing("c", &[]));
    assert_eq!(a.owner("docs"), b.owner("docs"));
    assert_ne!(a.owner("docs"), c.owner("docs"));
    assert_ne!(a.owner("private"), b.owner("private"));

    assert!(b.can_access(&a.owner("docs"), "docs"));
    assert!(!b.can_access(&a.owner("private"), "private"));
    assert!(!c.can_access(&a.owner("docs"), "docs"));
    assert!(c.can_access(&c.owner("docs"), "docs"));
}

/// A tenant named `Shared`, or one that lists other namespaces, does not see shared entries.
#[test]
fn a_tenant_named_shared_is_not_the_shared_owner() {
    let impostor = sharing("Shared", &[]);
    assert_eq!(impostor.owner("docs"), Owner::Tenant("Shared".into()));
    assert!(!impostor.can_access(&Owner::Shared, "docs"));
    assert!(!sharing("b", &["other"]).can_access(&Owner::Shared, "docs"));
}

#[test]
fn shared_entries_are_removed_only_with_their_namespace() {
    let a = sharing("a", &["docs"]);
    let own = Owner::Tenant("a".into());
    assert_eq!(a.owners_visible(Some("docs")), [own.clone(), Owner::Shared]);
    assert_eq!(a.owners_visible(Some("private")), std::slice::from_ref(&own));
    assert_eq!(a.owners_visible(None), [own]);
}

#[test]
fn a_rate_limit_allows_a_burst_and_then_its_rate() {
    let tenant = tenant(TenantConfig { rate_limit: Some(4.0), ..config("a") });
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    for _ in 0..4 {
        tenant.check_rate(at(0)).unwrap();
    }
    assert_eq!(refusal(tenant.check_rate(at(0))), ("rate", Duration::from_millis(250)));
    assert_eq!(refusal(tenant.check_rate(at(249))), ("rate", Duration::from_millis(1)));
    tenant.check_rate(at(250)).unwrap();
    assert_eq!(refusal(tenant.check_rate(at(250))), ("rate", Duration::from_millis(250)));
    // A refusal takes no token, and a long pause saves up one burst at most.
    let admitted = (0..100).filter(|_| tenant.check_rate(at(60_000)).is_ok()).count();
    assert_eq!(admitted, 4);
}

#[test]
fn a_rate_below_one_admits_one_request_at_a_time() {
    let tenant = tenant(TenantConfig { rate_limit: Some(0.1), ..config("a") });
    let start = Instant::now();
    tenant.check_rate(start).unwrap();
    assert_eq!(refusal(tenant.check_rate(start)), ("rate", Duration::from_secs(10)));
    tenant.check_rate(start + Duration::from_secs(10)).unwrap();
}

#[test]
fn the_rate_holds_under_concurrent_threads() {
    let tenant = tenant(TenantConfig { rate_limit: Some(100.0), ..config("a") });
    let now = Instant::now();
    let admit = || (0..100).filter(|_| tenant.check_rate(now).is_ok()).count();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(admit)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 100);
}

#[test]
fn a_budget_renews_at_midnight_utc() {
    let tenant = tenant(TenantConfig { budget_usd_per_day: Some(1.0), ..config("a") });
    let noon = at(DAY * 20_000.5);
    tenant.check_budget(noon).unwrap();
    tenant.spend(noon, 0.75);
    tenant.check_budget(noon).unwrap();
    tenant.spend(noon, 0.5);
    assert_eq!(tenant.spent_today(noon), 1.25);
    assert_eq!(refusal(tenant.check_budget(noon)), ("budget", Duration::from_secs(43_200)));

    let tomorrow = at(DAY * 20_001.0);
    tenant.check_budget(tomorrow).unwrap();
    assert_eq!(tenant.spent_today(tomorrow), 0.0);
    tenant.spend(tomorrow, 0.25);
    assert_eq!(tenant.spent_today(tomorrow), 0.25);
}

/// Otherwise a clock that is set back would grant yesterday's budget again.
#[test]
fn a_clock_set_back_does_not_refill_the_budget() {
    let tenant = tenant(TenantConfig { budget_usd_per_day: Some(1.0), ..config("a") });
    tenant.spend(at(DAY * 20_000.5), 1.0);
    assert!(tenant.check_budget(at(DAY * 19_999.5)).is_err());
    tenant.spend(at(DAY * 19_999.5), 1.0);
    assert_eq!(tenant.spent_today(at(DAY * 20_000.5)), 2.0);
}

#[test]
fn a_budget_of_zero_allows_no_call() {
    let tenant = tenant(TenantConfig { budget_usd_per_day: Some(0.0), ..config("a") });
    assert!(tenant.check_budget(at(DAY)).is_err());
}

#[test]
fn a_reload_keeps_usage() {
    let limited = TenantConfig { rate_limit: Some(1.0), budget_usd_per_day: Some(1.0), ..config("a") };
    let old = Tenants::new(std::slice::from_ref(&limited));
    let (start, noon) = (Instant::now(), at(DAY * 20_000.5));
    let before = old.authenticate(Some("key of a")).unwrap();
    before.check_rate(start).unwrap();

    let raised = TenantConfig { budget_usd_per_day: Some(2.0), ..limited };
    let new = old.reconfigured(&[raised, config("b")]);
    let after = new.authenticate(Some("key of a")).unwrap();
    assert!(after.check_rate(start).is_err());
    // A call that began before the reload counts against the new budget too.
    before.spend(noon, 1.5);
    assert_eq!(after.spent_today(noon), 1.5);
    assert!(before.check_budget(noon).is_err());
    assert!(after.check_budget(noon).is_ok());
    assert_eq!(new.authenticate(Some("key of b")).unwrap().spent_today(noon), 0.0);

    let gone = new.reconfigured(&[config("b")]);
    assert!(gone.authenticate(Some("key of a")).is_err());
}

#[test]
fn api_keys_are_not_printed() {
    let tenants = Tenants::new(&[config("a")]);
    let tenant = tenants.authenticate(Some("key of a")).unwrap();
    assert_eq!(format!("{tenants:?} {tenant:?}"), r#"{"a"} Tenant { name: "a", .. }"#);
    assert_eq!(format!("{:?}", ApiKeyHash::of("a")), "ApiKeyHash(****)");
}
