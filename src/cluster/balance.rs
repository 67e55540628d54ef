//! How shards are spread over engines: what one of them does about what it sees. Pure, so that it can be tested with
//! any number of engines.

use std::time::{Duration, Instant};

use helve_domain::id::{NodeId, SHARDS};

use crate::db::lease::NodeView;

/// What one engine does next.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Engines that are gone: they are fenced, then everything is looked at again.
    pub fence: Vec<NodeId>,
    /// Take at most so many shards that nobody owns.
    pub take: usize,
    /// Hand over so many.
    pub give: usize,
    /// Engines that look gone. A second look decides.
    pub suspects: Vec<NodeId>,
    /// Of those, the ones whose lease goes on: they are asked to renew it, which only who lives can do.
    pub doubt: Vec<NodeId>,
    /// When to look again, if that is sooner than usual.
    pub soon: Option<Duration>,
}

/// How soon a suspect is looked at again, and how soon an engine looks that waits for shards.
const SOON: Duration = Duration::from_millis(300);
/// How long an engine must have looked gone: news of others make looks follow each other at once, and one whose lanes
/// are just connecting again, or that is just stopping, looks gone for a moment.
const SUSPICION: Duration = Duration::from_millis(250);
/// How long an engine may be without a lane although it renews its lease. Connections that are cut are opened again
/// within a second or two; one that cannot open any leaves its tenants' work lying, and another engine can.
const LANELESS: Duration = Duration::from_secs(15);
/// A lease is looked at so long after its end.
const PAST_THE_END: Duration = Duration::from_millis(30);

fn shards() -> usize {
    usize::try_from(SHARDS).unwrap_or(0)
}

/// Its lease has run out, or none of its lanes has a backend although the server itself did not just start.
pub(crate) const fn looks_gone(node: &NodeView) -> bool {
    node.remaining.is_none() || (!node.connected && node.settled)
}

/// How many shards an engine should own: as many as every other, and one more for the first ones by id while that
/// does not come out even. Engines that do not take part own none.
fn target(nodes: &[NodeView], me: NodeId, node: NodeId) -> usize {
    // Whoever looks is alive, whatever the snapshot says of its lease. One that looks gone gets nothing more.
    let takes_part = |n: &&NodeView| n.joined && !n.leaving && (n.id == me || !looks_gone(n));
    let mut members: Vec<NodeId> = nodes.iter().filter(takes_part).map(|n| n.id).collect();
    members.sort_unstable();
    let Some(place) = members.iter().position(|member| *member == node) else { return 0 };
    let (each, rest) = (shards() / members.len(), shards() % members.len());
    each + usize::from(place < rest)
}

/// What `me` does about these nodes. `suspects` have looked gone for [`SUSPICION`]; `judges`: it has renewed its lease often
/// enough to know that it is not the database that stalled.
fn plan(nodes: &[NodeView], me: NodeId, suspects: &[NodeId], judges: bool) -> Plan {
    let mut plan = Plan::default();
    for node in nodes.iter().filter(|n| n.id != me && looks_gone(n)) {
        match judges && suspects.contains(&node.id) {
            true => plan.fence.push(node.id),
            false => plan.suspects.push(node.id),
        }
    }
    let renews = |n: &&NodeView| n.remaining.is_some() && plan.suspects.contains(&n.id);
    plan.doubt = nodes.iter().filter(renews).map(|n| n.id).collect();
    if !plan.fence.is_empty() {
        return plan;
    }
    let owned = nodes.iter().find(|n| n.id == me).map_or(0, |n| n.shards.len());
    let free = shards().saturating_sub(nodes.iter().map(|n| n.shards.len()).sum());
    let mine = target(nodes, me, me);
    plan.take = mine.saturating_sub(owned).min(free);
    // Only what somebody has room for: everything else would be served by nobody.
    let room: usize =
        nodes.iter().filter(|n| n.id != me).map(|n| target(nodes, me, n.id).saturating_sub(n.shards.len())).sum();
    plan.give = owned.saturating_sub(mine).min(room.saturating_sub(free));
    let ends = nodes.iter().filter(|n| n.id != me).filter_map(|n| n.remaining).min();
    let waits = plan.suspects.is_empty() && owned + plan.take >= mine;
    plan.soon = [ends.map(|rest| rest + PAST_THE_END), (!waits).then_some(SOON)].into_iter().flatten().min();
    plan
}

/// An engine that looks gone.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    node: NodeId,
    /// Its lease when it was first seen like this.
    lease: i64,
    /// When that was.
    since: Instant,
    /// The same, whether it has renewed its lease meanwhile or not.
    laneless_since: Instant,
}

/// Engines that look gone, and since when.
#[derive(Default)]
pub(crate) struct Suspects(Vec<Suspect>);

impl Suspects {
    /// What `me` does about what it sees at `now`. `judges`: see [`plan`].
    pub fn plan(&mut self, nodes: &[NodeView], me: NodeId, judges: bool, now: Instant) -> Plan {
        let gone = nodes.iter().filter(|n| n.id != me && looks_gone(n));
        let seen: Vec<Suspect> = gone.map(|node| self.suspect(node, now)).collect();
        let long =
            |s: &&Suspect| now.duration_since(s.since) >= SUSPICION || now.duration_since(s.laneless_since) >= LANELESS;
        let long: Vec<NodeId> = seen.iter().filter(long).map(|s| s.node).collect();
        let plan = plan(nodes, me, &long, judges);
        self.0 = seen.into_iter().filter(|s| plan.suspects.contains(&s.node)).collect();
        plan
    }

    /// A lease that was renewed after it was last looked at outweighs the lanes that are missing: the connections were
    /// cut, and the process lives.
    fn suspect(&self, node: &NodeView, now: Instant) -> Suspect {
        let fresh = Suspect { node: node.id, lease: node.lease, since: now, laneless_since: now };
        match self.0.iter().find(|s| s.node == node.id) {
            Some(known) if known.lease == node.lease => *known,
            Some(known) => Suspect { laneless_since: known.laneless_since, ..fresh },
            None => fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use helve_domain::secret::Secret;
    use proptest::prelude::*;

    use super::*;

    fn node(number: u128, shards: std::ops::Range<i16>) -> NodeView {
        NodeView {
            id: NodeId::from_uuid(uuid::Uuid::from_u128(number)),
            address: String::new(),
            secret: Secret::new(""),
            joined: true,
            leaving: false,
            lease: 0,
            remaining: Some(Duration::from_secs(3)),
            connected: true,
            settled: true,
            shards: shards.collect(),
        }
    }

    #[test]
    fn one_engine_takes_everything() {
        let nodes = [node(1, 0..0)];
        assert_eq!(plan(&nodes, nodes[0].id, &[], true), Plan { take: 64, ..Plan::default() });
    }

    #[test]
    fn a_newcomer_gets_half() {
        let nodes = [node(1, 0..64), node(2, 0..0)];
        let first = plan(&nodes, nodes[0].id, &[], true);
        assert_eq!((first.give, first.take), (32, 0));
        let second = plan(&nodes, nodes[1].id, &[], true);
        assert_eq!((second.give, second.take, second.soon), (0, 0, Some(SOON)), "it waits, and looks often");
    }

    #[test]
    fn one_that_looks_gone_gets_nothing() {
        let mut nodes = [node(1, 0..64), node(2, 0..0)];
        nodes[1].connected = false;
        assert_eq!(plan(&nodes, nodes[0].id, &[], true).give, 0);
    }

    #[test]
    fn one_that_has_not_joined_gets_nothing() {
        let mut nodes = [node(1, 0..64), node(2, 0..0)];
        nodes[1].joined = false;
        assert_eq!(plan(&nodes, nodes[0].id, &[], true).give, 0);
    }

    #[test]
    fn one_that_leaves_gives_everything_and_takes_nothing() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        nodes[1].leaving = true;
        let leaving = plan(&nodes, nodes[1].id, &[], true);
        assert_eq!((leaving.give, leaving.take), (32, 0));
        nodes[1].shards.clear();
        assert_eq!(plan(&nodes, nodes[0].id, &[], true).take, 32);
    }

    #[test]
    fn the_last_one_keeps_what_nobody_else_can_take() {
        let mut nodes = [node(1, 0..64)];
        nodes[0].leaving = true;
        assert_eq!(plan(&nodes, nodes[0].id, &[], true).give, 0);
    }

    #[test]
    fn who_looks_gone_twice_is_fenced_and_nobody_else() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        nodes[1].remaining = None;
        let (me, other) = (nodes[0].id, nodes[1].id);
        let first = plan(&nodes, me, &[], true);
        assert_eq!((first.fence, first.suspects, first.soon), (vec![], vec![other], Some(SOON)));
        assert_eq!(plan(&nodes, me, &[other], true).fence, [other]);
        assert_eq!(plan(&nodes, me, &[other], false).fence, [], "after a stall of the database nobody is judged");
        nodes[1].remaining = Some(Duration::from_secs(1));
        nodes[1].connected = false;
        assert_eq!(plan(&nodes, me, &[other], true).fence, [other], "its lanes are gone");
        nodes[1].settled = false;
        assert_eq!(plan(&nodes, me, &[other], true).fence, [], "the server has just started");
        assert_eq!(plan(&nodes, other, &[me], true).fence, [], "nobody fences who lives");
    }

    #[test]
    fn looks_that_follow_each_other_at_once_fence_nobody() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        let (me, other) = (nodes[0].id, nodes[1].id);
        let (mut suspects, start) = (Suspects::default(), helve_domain::clock::Clock::system().instant());
        let mut fenced =
            |nodes: &[NodeView], millis| suspects.plan(nodes, me, true, start + Duration::from_millis(millis)).fence;
        nodes[1].connected = false;
        assert_eq!([fenced(&nodes, 0), fenced(&nodes, 1), fenced(&nodes, 200)], [[], [], []]);
        nodes[1].connected = true;
        assert_eq!(fenced(&nodes, 240), [], "it is back, and no suspect any more");
        nodes[1].connected = false;
        assert_eq!([fenced(&nodes, 260), fenced(&nodes, 500)], [[], []]);
        assert_eq!(fenced(&nodes, 520), [other]);
    }

    #[test]
    fn who_renews_its_lease_lives_although_its_lanes_are_missing() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        let (me, other) = (nodes[0].id, nodes[1].id);
        let (mut suspects, start) = (Suspects::default(), helve_domain::clock::Clock::system().instant());
        let mut look =
            |nodes: &[NodeView], millis| suspects.plan(nodes, me, true, start + Duration::from_millis(millis));
        nodes[1].connected = false;
        let first = look(&nodes, 0);
        assert_eq!((first.fence, first.doubt), (vec![], vec![other]), "it is asked whether it lives");
        nodes[1].lease = 1;
        assert_eq!(look(&nodes, 300).fence, [], "it has answered");
        // Dead from here on: nobody renews.
        assert_eq!(look(&nodes, 500).fence, []);
        assert_eq!(look(&nodes, 600).fence, [other]);
    }

    #[test]
    fn who_cannot_open_a_lane_for_long_leaves_its_shards_to_others() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        let (me, other) = (nodes[0].id, nodes[1].id);
        let (mut suspects, start) = (Suspects::default(), helve_domain::clock::Clock::system().instant());
        nodes[1].connected = false;
        let mut fenced_at = None;
        for turn in 0..100 {
            nodes[1].lease = turn;
            let at = SOON * u32::try_from(turn).unwrap();
            if suspects.plan(&nodes, me, true, start + at).fence == [other] {
                fenced_at = Some(at);
                break;
            }
        }
        assert_eq!(fenced_at, Some(LANELESS), "it renews all the time");
    }

    #[test]
    fn an_engine_whose_lease_has_run_out_is_not_asked() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        nodes[1].remaining = None;
        assert_eq!(plan(&nodes, nodes[0].id, &[], true).doubt, []);
    }

    #[test]
    fn the_look_comes_when_a_lease_ends() {
        let mut nodes = [node(1, 0..32), node(2, 32..64)];
        nodes[1].remaining = Some(Duration::from_millis(400));
        let soon = plan(&nodes, nodes[0].id, &[], true).soon;
        assert_eq!(soon, Some(Duration::from_millis(430)));
    }

    proptest! {
        /// Whoever looks in whatever order: every shard finds an owner, evenly, and then nothing moves any more.
        #[test]
        fn any_order_of_looks_ends_evenly(
            owners in proptest::collection::vec(0_usize..5, 64),
            gone in proptest::collection::vec(any::<bool>(), 5),
            order in proptest::collection::vec(0_usize..5, 60),
        ) {
            let mut nodes: Vec<NodeView> = (0..5).map(|n| node(n, 0..0)).collect();
            for (shard, owner) in owners.iter().enumerate() {
                // The last one stands for nobody.
                if *owner < 4 {
                    nodes[*owner].shards.push(i16::try_from(shard).unwrap());
                }
            }
            for (n, gone) in nodes.iter_mut().zip(&gone).skip(1) {
                n.remaining = n.remaining.filter(|_| !gone);
            }
            let mut suspects: Vec<Vec<NodeId>> = vec![Vec::new(); 5];
            let all: Vec<usize> = order.into_iter().chain((0..8).flat_map(|_| 0..5)).collect();
            let mut moved_in_the_end = 0;
            for (turn, who) in all.iter().enumerate() {
                let me = node(u128::try_from(*who).unwrap(), 0..0).id;
                let Some(at) = nodes.iter().position(|n| n.id == me && n.remaining.is_some()) else { continue };
                let id = nodes[at].id;
                let plan = plan(&nodes, id, &suspects[*who], true);
                suspects[*who].clone_from(&plan.suspects);
                let free: Vec<i16> =
                    (0..64).filter(|s| !nodes.iter().any(|n| n.shards.contains(s))).collect();
                prop_assert!(plan.take <= free.len());
                nodes[at].shards.extend(free.into_iter().take(plan.take));
                let keep = nodes[at].shards.len() - plan.give;
                nodes[at].shards.truncate(keep);
                nodes.retain(|n| !plan.fence.contains(&n.id));
                if turn + 5 >= all.len() {
                    moved_in_the_end += plan.take + plan.give + plan.fence.len();
                }
            }
            prop_assert_eq!(moved_in_the_end, 0);
            let owned: usize = nodes.iter().map(|n| n.shards.len()).sum();
            prop_assert_eq!(owned, 64);
            let (least, most) = (nodes.iter().map(|n| n.shards.len()).min(), nodes.iter().map(|n| n.shards.len()).max());
            prop_assert!(most.unwrap() - least.unwrap() <= 1);
        }
    }
}
