//! Which ways are cut: partitions, one-way or both, between any sets of nodes.

/// Some ways that are cut.
#[derive(Clone, Debug)]
struct Cut {
    fault: usize,
    from: Vec<bool>,
    to: Vec<bool>,
}

/// All ways that are cut.
#[derive(Clone, Debug, Default)]
pub struct Cuts(Vec<Cut>);

impl Cuts {
    /// Cuts what hosts in `from` send to hosts in `to`, for the sake of a fault.
    pub fn add(&mut self, fault: usize, from: &[usize], to: &[usize], hosts: usize) {
        let set = |members: &[usize]| {
            let mut set = vec![false; hosts];
            members.iter().for_each(|host| set[*host] = true);
            set
        };
        self.0.push(Cut { fault, from: set(from), to: set(to) });
    }

    /// Ends what a fault had cut.
    pub fn end(&mut self, fault: usize) {
        self.0.retain(|cut| cut.fault != fault);
    }

    /// Whether a fault has cut anything.
    pub fn has(&self, fault: usize) -> bool {
        self.0.iter().any(|cut| cut.fault == fault)
    }

    /// Ends all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Whether nothing that `from` sends reaches `to`.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        let has = |set: &[bool], host: usize| set.get(host).copied().unwrap_or(false);
        self.0.iter().any(|cut| has(&cut.from, from) && has(&cut.to, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_have_a_direction_and_an_end() {
        let mut cuts = Cuts::default();
        cuts.add(1, &[0], &[1, 2], 4);
        cuts.add(2, &[2], &[0], 4);
        assert!(cuts.is_cut(0, 1) && !cuts.is_cut(1, 0) && cuts.is_cut(2, 0) && !cuts.is_cut(0, 3));
        cuts.end(1);
        assert!(!cuts.is_cut(0, 1) && cuts.is_cut(2, 0));
        assert!(!cuts.is_cut(9, 0), "who joined later is not cut off");
    }
}
