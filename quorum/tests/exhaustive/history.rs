//! What callers see of one repository: a register, whose writes may come to nothing.

use stateright::semantics::SequentialSpec;

/// Whose write the repository shows; 0 before the first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Content(pub u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    Write(u64),
    Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Told {
    Applied,
    NotApplied,
    Content(u64),
    Refused,
}

impl SequentialSpec for Content {
    type Op = Asked;
    type Ret = Told;

    fn invoke(&mut self, asked: &Asked) -> Told {
        match asked {
            Asked::Write(content) => {
                self.0 = *content;
                Told::Applied
            }
            Asked::Read => Told::Content(self.0),
        }
    }

    fn is_valid_step(&mut self, asked: &Asked, told: &Told) -> bool {
        match (asked, told) {
            // It changed nothing, now or later.
            (Asked::Write(_), Told::NotApplied) | (Asked::Read, Told::Refused) => true,
            (Asked::Write(_) | Asked::Read, _) => self.invoke(asked) == *told,
        }
    }
}
