//! Which quota a client has, by Kafka's order of precedence.

use std::collections::HashMap;

use aquifer_types::TenantName;

use super::entity::{ClientQuota, EntityKind, Quota, Quotas};

/// Things by name, and that of everybody else.
#[derive(Debug)]
struct ByName<T> {
    named: HashMap<String, T>,
    others: Option<T>,
}

/// The quotas of a user, and of each client of that user.
#[derive(Debug, Default)]
struct OfUser {
    quotas: Quotas,
    clients: ByName<Quotas>,
}

#[derive(Debug, Default)]
struct OfTenant {
    users: ByName<OfUser>,
    clients: ByName<Quotas>,
}

/// The quotas of users and clients.
#[derive(Debug, Default)]
pub(super) struct QuotaTable {
    tenants: HashMap<TenantName, OfTenant>,
}

/// The quota that holds for a client, and who shares it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Found {
    pub(super) limit: f64,
    /// Each user has it apart.
    pub(super) is_of_user: bool,
    /// Each client id has it apart.
    pub(super) is_of_client: bool,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { named: HashMap::new(), others: None }
    }
}

impl<T: Default> ByName<T> {
    fn entry(&mut self, name: Option<&str>) -> &mut T {
        match name {
            Some(name) => self.named.entry(name.to_owned()).or_default(),
            None => self.others.get_or_insert_default(),
        }
    }
}

impl<T> ByName<T> {
    /// What has this name, then what everybody else has.
    fn of(&self, name: &str) -> impl Iterator<Item = &T> {
        self.named.get(name).into_iter().chain(&self.others)
    }
}

impl QuotaTable {
    pub(super) fn put(&mut self, tenant: &TenantName, quota: &ClientQuota) {
        let tenant = self.tenants.entry(tenant.clone()).or_default();
        let user = quota.entity.part(EntityKind::User);
        let client = quota.entity.part(EntityKind::ClientId);
        let quotas = match (user, client) {
            (Some(user), Some(client)) => tenant.users.entry(user).clients.entry(client),
            (Some(user), None) => &mut tenant.users.entry(user).quotas,
            (None, Some(client)) => tenant.clients.entry(client),
            // Those of addresses.
            (None, None) => return,
        };
        quotas.extend(&quota.quotas);
    }

    /// The quota of a user's client: the user's own for that client, then that
    /// for any client, then that of the user alone, then the same of everybody
    /// else, and last those of the client whoever uses it.
    pub(super) fn find(
        &self,
        tenant: &TenantName,
        user: &str,
        client: &str,
        quota: Quota,
    ) -> Option<Found> {
        let of_tenant = self.tenants.get(tenant)?;
        let found = |quotas: &Quotas, is_of_user, is_of_client| {
            let limit = *quotas.get(&quota)?;
            Some(Found { limit, is_of_user, is_of_client })
        };
        let of_user = |of: &OfUser| {
            let of_client = of.clients.of(client).find_map(|quotas| found(quotas, true, true));
            of_client.or_else(|| found(&of.quotas, true, false))
        };
        let of_users = of_tenant.users.of(user).find_map(of_user);
        let of_client = || of_tenant.clients.of(client).find_map(|of| found(of, false, true));
        of_users.or_else(of_client)
    }
}

#[cfg(test)]
mod tests {
    use super::super::entity::Entity;
    use super::*;

    #[test]
    fn the_nearest_quota_holds() {
        let tenant = TenantName::default_tenant();
        // In Kafka's order, each with its place as its limit.
        let order: [&[(&str, Option<&str>)]; 8] = [
            &[("user", Some("u")), ("client-id", Some("c"))],
            &[("user", Some("u")), ("client-id", None)],
            &[("user", Some("u"))],
            &[("user", None), ("client-id", Some("c"))],
            &[("user", None), ("client-id", None)],
            &[("user", None)],
            &[("client-id", Some("c"))],
            &[("client-id", None)],
        ];
        let shared = [
            (true, true),
            (true, true),
            (true, false),
            (true, true),
            (true, true),
            (true, false),
            (false, true),
            (false, true),
        ];
        for first in 0..=order.len() {
            let mut table = QuotaTable::default();
            for (place, parts) in order.iter().enumerate().skip(first) {
                let entity = Entity::of(parts.iter().copied()).unwrap();
                let quotas = [(Quota::ProducerByteRate, place as f64)].into();
                table.put(&tenant, &ClientQuota { entity, quotas });
            }
            // Another quota does not stand in the way.
            let other = [(Quota::ConsumerByteRate, 99.0)].into();
            let entity = Entity::of(order[0].iter().copied()).unwrap();
            table.put(&tenant, &ClientQuota { entity, quotas: other });
            let check = |user, client, places: &[usize]| {
                let found = table.find(&tenant, user, client, Quota::ProducerByteRate);
                let expected = places.iter().copied().find(|place| *place >= first);
                assert_eq!(found.map(|of| of.limit as usize), expected, "{first} {user} {client}");
                if let (Some(found), Some(place)) = (found, expected) {
                    assert_eq!((found.is_of_user, found.is_of_client), shared[place]);
                }
            };
            check("u", "c", &[0, 1, 2, 3, 4, 5, 6, 7]);
            check("u", "d", &[1, 2, 4, 5, 7]);
            check("v", "c", &[3, 4, 5, 6, 7]);
            check("v", "d", &[4, 5, 7]);
            let elsewhere = TenantName::new("elsewhere").unwrap();
            assert_eq!(table.find(&elsewhere, "u", "c", Quota::ProducerByteRate), None);
        }
    }
}
