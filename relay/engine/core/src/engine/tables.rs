//! The engine's three tables and the keys into them. A key is an index into one table and a type of its own, so that a key of
//! another table does not compile. Must never know what a row holds. Read `mod.rs` next, which has one table of each kind.
//!
//! A client's key finds a client:
//!
//! ```
//! use millrace_core::engine::tables::{ClientKey, PublicationKey, Table};
//!
//! fn owner(clients: &Table<ClientKey, &'static str>, client: ClientKey, _publication: PublicationKey) -> &'static str {
//!     clients[client]
//! }
//! ```
//!
//! With two keys swapped it does not compile:
//!
//! ```compile_fail,E0308
//! use millrace_core::engine::tables::{ClientKey, PublicationKey, Table};
//!
//! fn owner(clients: &Table<ClientKey, &'static str>, client: ClientKey, publication: PublicationKey) -> &'static str {
//!     clients[publication]
//! }
//! ```
//!
//! ```compile_fail,E0308
//! use millrace_core::engine::tables::{ClientKey, PublicationKey};
//!
//! fn publish(_client: ClientKey, _publication: PublicationKey) {}
//!
//! fn swapped(client: ClientKey, publication: PublicationKey) {
//!     publish(publication, client);
//! }
//! ```

use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use slab::Slab;

macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(usize);

        impl From<usize> for $name {
            #[inline]
            fn from(index: usize) -> $name {
                $name(index)
            }
        }

        impl From<$name> for usize {
            #[inline]
            fn from(key: $name) -> usize {
                key.0
            }
        }
    )*};
}

keys! {
    /// Finds a client. It may be another client's once this one is removed, as with every key here.
    ClientKey,
    /// Finds a publication.
    PublicationKey,
    /// Finds a subscription.
    SubscriptionKey,
}

/// A slab that only its own keys open.
#[derive(Debug)]
pub struct Table<K, V> {
    rows: Slab<V>,
    key: PhantomData<K>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Table<K, V> {
        Table { rows: Slab::new(), key: PhantomData }
    }
}

impl<K: From<usize> + Into<usize>, V> Table<K, V> {
    #[inline]
    pub fn insert(&mut self, row: V) -> K {
        self.rows.insert(row).into()
    }

    /// The key that the next `insert` will return.
    #[inline]
    pub fn vacant_key(&self) -> K {
        self.rows.vacant_key().into()
    }

    /// Panics when there is no such row, as indexing does.
    #[inline]
    pub fn remove(&mut self, key: K) -> V {
        self.rows.remove(key.into())
    }

    #[inline]
    pub fn contains(&self, key: K) -> bool {
        self.rows.contains(key.into())
    }

    #[inline]
    pub fn get(&self, key: K) -> Option<&V> {
        self.rows.get(key.into())
    }

    #[inline]
    pub fn get_mut(&mut self, key: K) -> Option<&mut V> {
        self.rows.get_mut(key.into())
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The keys of all rows, the lowest first.
    pub fn keys(&self) -> impl Iterator<Item = K> {
        self.rows.iter().map(|(key, _)| key.into())
    }
}

impl<K: Into<usize>, V> Index<K> for Table<K, V> {
    type Output = V;

    #[inline]
    fn index(&self, key: K) -> &V {
        &self.rows[key.into()]
    }
}

impl<K: Into<usize>, V> IndexMut<K> for Table<K, V> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut V {
        &mut self.rows[key.into()]
    }
}
