//! Dense identifiers. A name is looked up once, when the config is compiled; from then on a target is
//! a `u16` and a table is an index away.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// An identifier that is an index.
pub trait Id: Copy {
    /// The index it stands for.
    fn index(self) -> usize;
    /// The identifier of `index`. Indices past `u16::MAX` are refused when the config is compiled.
    fn from_index(index: usize) -> Self;
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
        pub struct $name(pub u16);
        impl Id for $name {
            fn index(self) -> usize { usize::from(self.0) }
            fn from_index(index: usize) -> Self {
                debug_assert!(index <= usize::from(u16::MAX));
                $name(index as u16)
            }
        }
    )*};
}

id! {
    /// A provider of the config: one API, one base URL.
    ProviderId;
    /// A target: provider, upstream model and credential. What an attempt is made against.
    TargetId;
    /// An endpoint: host, port and TLS identity. What a connection pool is keyed by.
    EndpointId;
    /// A model of the config, as clients name it.
    ModelId;
    /// A gateway key of `[auth]`.
    KeyId;
    /// A core of this process.
    CoreId;
}

/// A vector indexed by one kind of identifier, so that a target can't index a provider's table.
#[derive(Clone)]
pub struct Table<I, T> {
    rows: Vec<T>,
    _id: PhantomData<fn(I)>,
}

impl<I: Id, T> Table<I, T> {
    /// An empty table.
    pub fn new() -> Self {
        Table { rows: Vec::new(), _id: PhantomData }
    }

    /// Appends a row and returns its identifier.
    pub fn push(&mut self, row: T) -> I {
        self.rows.push(row);
        I::from_index(self.rows.len() - 1)
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row, if the identifier is of this table.
    pub fn get(&self, id: I) -> Option<&T> {
        self.rows.get(id.index())
    }

    /// All rows in the order of their identifiers.
    pub fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.rows.iter().enumerate().map(|(i, row)| (I::from_index(i), row))
    }

    /// All rows, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (I, &mut T)> {
        self.rows.iter_mut().enumerate().map(|(i, row)| (I::from_index(i), row))
    }
}

impl<I: Id, T> Default for Table<I, T> {
    fn default() -> Self {
        Table::new()
    }
}

impl<I: Id, T> FromIterator<T> for Table<I, T> {
    fn from_iter<It: IntoIterator<Item = T>>(rows: It) -> Self {
        Table { rows: rows.into_iter().collect(), _id: PhantomData }
    }
}

impl<I: Id, T> Index<I> for Table<I, T> {
    type Output = T;
    fn index(&self, id: I) -> &T {
        &self.rows[id.index()]
    }
}

impl<I: Id, T> IndexMut<I> for Table<I, T> {
    fn index_mut(&mut self, id: I) -> &mut T {
        &mut self.rows[id.index()]
    }
}

impl<I, T: fmt::Debug> fmt::Debug for Table<I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.rows).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_dense_and_in_order() {
        let mut table: Table<TargetId, &str> = Table::new();
        assert!(table.is_empty());
        let (a, b) = (table.push("a"), table.push("b"));
        assert_eq!((a, b), (TargetId(0), TargetId(1)));
        assert_eq!((table[a], table[b], table.len()), ("a", "b", 2));
        assert_eq!(table.get(TargetId(2)), None);
        assert_eq!(table.iter().map(|(id, _)| id.0).collect::<Vec<_>>(), [0, 1]);
    }
}
