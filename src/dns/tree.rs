//! The tree of names. A name exists while something is at it or below it, so an
//! empty non-terminal (RFC 8020, RFC 4592 section 2.2.2) is a node like any other.

use super::name::{QueryName, WILDCARD};
use crate::base::{Hostname, Version};
use std::{collections::HashMap, net::IpAddr};

#[derive(Default)]
pub(super) struct Tree {
    root: Node,
}

/// One label. The count of its children and of `pins` keeps it alive.
#[derive(Default)]
pub(super) struct Node {
    children: HashMap<Box<[u8]>, Node>,
    /// The zone whose apex this is.
    pub(super) apex: Option<Hostname>,
    /// How many zones name a server here.
    pub(super) pins: u32,
    /// Records of the exact name, or of a wildcard that covers one label.
    pub(super) records: Option<Box<Records>>,
    /// Records of a wildcard that covers any number of labels.
    pub(super) deep_records: Option<Box<Records>>,
}

/// The addresses of one owner.
pub(super) struct Records {
    pub(super) v4: Box<[IpAddr]>,
    pub(super) v6: Box<[IpAddr]>,
    pub(super) ttl: Option<u32>,
    /// Of the record set it was made of.
    pub(super) version: Version,
}

/// Where a name lies.
pub(super) struct Found<'t> {
    pub(super) zone: &'t Hostname,
    /// How many labels the zone's apex has.
    pub(super) apex_labels: usize,
    pub(super) place: Place<'t>,
}

pub(super) enum Place<'t> {
    /// The name exists.
    Node(&'t Node),
    /// It does not, but a wildcard stands for it below the closest encloser,
    /// which has this many labels.
    Wildcard {
        node: &'t Node,
        encloser_labels: usize,
    },
    Nowhere,
}

impl Node {
    fn is_empty(&self) -> bool {
        let Self { children, apex, pins, records, deep_records } = self;
        children.is_empty() && apex.is_none() && *pins == 0 && records.is_none() && deep_records.is_none()
    }

    /// Removes the rest of a path where nothing holds it. Depth is bounded by the
    /// 127 labels of a name.
    fn prune(&mut self, path: &[&[u8]]) {
        if let Some((label, rest)) = path.split_first()
            && let Some(child) = self.children.get_mut(*label)
        {
            child.prune(rest);
            if child.is_empty() {
                self.children.remove(*label);
            }
        }
    }

    /// The versions of all records here and below, as far as this zone reaches.
    fn content(&self) -> u128 {
        let own = [&self.records, &self.deep_records].into_iter().flatten();
        let own = own.fold(0_u128, |sum, records| sum.wrapping_add(records.version.0));
        let below = self.children.values().filter(|child| child.apex.is_none());
        below.fold(own, |sum, child| sum.wrapping_add(child.content()))
    }
}

impl Tree {
    /// Changes the node at a path, made if need be and dropped if it ends up empty.
    pub(super) fn edit<T>(&mut self, path: &[&[u8]], change: impl FnOnce(&mut Node) -> T) -> T {
        let mut node = &mut self.root;
        for &label in path {
            // Not `entry`: it would copy the label also where it is there already.
            if !node.children.contains_key(label) {
                node.children.insert(label.into(), Node::default());
            }
            node = node.children.get_mut(label).expect("it was there or just put there");
        }
        let result = change(node);
        if node.is_empty() {
            self.root.prune(path);
        }
        result
    }

    /// The deepest zone at or above a path.
    pub(super) fn zone_of(&self, path: &[&[u8]]) -> Option<&Hostname> {
        let mut node = &self.root;
        let mut zone = None;
        for &label in path {
            let Some(child) = node.children.get(label) else { break };
            node = child;
            zone = node.apex.as_ref().or(zone);
        }
        zone
    }

    /// The sum of the versions of the records that a zone here holds.
    pub(super) fn content(&self, path: &[&[u8]]) -> u128 {
        let mut node = &self.root;
        for &label in path {
            let Some(child) = node.children.get(label) else { return 0 };
            node = child;
        }
        node.content()
    }

    /// Finds a name by one walk from the top. `above` asks the zone that holds the
    /// delegation instead of the one that begins at the name (DS: RFC 4035
    /// section 3.1.4.1), if we have both.
    pub(super) fn find(&self, name: &QueryName, above: bool) -> Option<Found<'_>> {
        let mut node = &self.root;
        let mut zone: Option<(&Hostname, usize)> = None;
        let mut depth = 0;
        for label in name.top_down() {
            let Some(child) = node.children.get(label) else { break };
            node = child;
            depth += 1;
            if let Some(apex) = &node.apex
                && !(above && depth == name.labels() && zone.is_some())
            {
                zone = Some((apex, depth));
            }
        }
        let (zone, apex_labels) = zone?;
        let place = if depth == name.labels() {
            Place::Node(node)
        } else {
            // Only the closest encloser's wildcard counts (RFC 4592 section 3.3.1):
            // a name in between, even an empty one, blocks those further up.
            match node.children.get(WILDCARD) {
                Some(wildcard) => Place::Wildcard { node: wildcard, encloser_labels: depth },
                None => Place::Nowhere,
            }
        };
        Some(Found { zone, apex_labels, place })
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.root.is_empty()
    }
}
