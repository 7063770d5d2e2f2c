//! Which faults a seed has, and how often: each kind is off in half of the
//! seeds, so that one does not hide what another would show.

use crate::dice::Dice;

/// Rates are per 1,000 unless said otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Swarm {
    pub(crate) steps: usize,
    pub(crate) engines: usize,
    /// Weight of an edit among what may happen.
    pub(crate) edits: u32,
    /// An event stays where it is while later ones pass it.
    pub(crate) late: u32,
    pub(crate) duplicated: u32,
    /// An event is lost, and a list is read again.
    pub(crate) lost: u32,
    /// The control plane dies between two effects.
    pub(crate) crash: u32,
    /// Weight of a kill at rest among what may happen.
    pub(crate) kill: u32,
    pub(crate) disk_full: u32,
    /// A write fails, and is on the disk all the same.
    pub(crate) in_doubt: u32,
    /// A crash loses what was not synced.
    pub(crate) power_loss: u32,
    /// Weights among what may happen.
    pub(crate) cut: u32,
    pub(crate) restart: u32,
    pub(crate) silence: u32,
    pub(crate) hello: u32,
    pub(crate) own_failure: u32,
    pub(crate) jump: u32,
    /// One version in so many is refused by engines; 0: none.
    pub(crate) bad: u64,
    /// Engines with a relay before their Envoy.
    pub(crate) relays: u32,
    /// Wall clock in percent of true time.
    pub(crate) rate: i64,
}

impl Swarm {
    pub(crate) fn new(dice: &mut Dice, relays: bool) -> Self {
        let mut some = |rates: &[u32]| if dice.chance(500) { dice.pick(rates) } else { 0 };
        let mut swarm = Self {
            steps: 0,
            engines: 0,
            edits: 0,
            late: some(&[100, 500, 900]),
            duplicated: some(&[50, 300]),
            lost: some(&[20, 200]),
            crash: some(&[5, 20, 100]),
            kill: some(&[1, 3, 8]),
            disk_full: some(&[50, 300, 900]),
            in_doubt: some(&[50, 300]),
            power_loss: some(&[500, 1_000]),
            cut: some(&[2, 8, 20]),
            restart: some(&[1, 3, 6]),
            silence: some(&[2, 8]),
            hello: some(&[3, 10]),
            own_failure: some(&[1, 3]),
            jump: some(&[1, 3]),
            bad: 0,
            relays: if relays { some(&[500, 1_000]) } else { 0 },
            rate: 100,
        };
        if dice.chance(600) {
            swarm.bad = dice.pick(&[6, 12, 30]);
        }
        swarm.rate = dice.pick(&[100, 100, 50, 200]);
        swarm.edits = dice.pick(&[10, 20, 40]);
        swarm.steps = 30 + dice.below(70);
        swarm.engines = 1 + dice.below(3);
        swarm
    }
}
