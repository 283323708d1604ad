//! Reads what another release has packed: items that it has more at the end of a struct are skipped, and those that it
//! lacks take their `#[serde(default)]`. Owns no shape; must never be used for commands, where what is not known is a defect.
//! Read `engine/records.rs` next, whose session records outlive the program that wrote them.
//!
//! A struct is an array of its fields in their order (a map of them is read, too, should a later release write that), so a
//! field is only ever added at the end. serde's derived code takes as many items as it knows; what is left over is read
//! and forgotten here, however deep in the record.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error, IgnoredAny, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

/// A value of another release. An error when what has no default is absent, or is not what it should be.
pub fn from_slice<T: DeserializeOwned>(packed: &[u8]) -> Result<T, rmp_serde::decode::Error> {
    T::deserialize(Forgiving(&mut rmp_serde::Deserializer::from_read_ref(packed)))
}

/// Around serde's own of each kind, so that whatever is inside is read forgivingly, too.
struct Forgiving<T>(T);

/// Around the visitor of a struct with these fields.
struct OfStruct<V>(V, &'static [&'static str]);

/// A map of which only known keys are shown.
struct Known<A>(A, &'static [&'static str]);

macro_rules! forward {
    ($($method:ident($($name:ident: $type:ty),*);)*) => {
        $(fn $method<V: Visitor<'de>>(self, $($name: $type,)* visitor: V) -> Result<V::Value, D::Error> {
            self.0.$method($($name,)* Forgiving(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Forgiving<D> {
    type Error = D::Error;

    forward! {
        deserialize_any(); deserialize_bool(); deserialize_i8(); deserialize_i16(); deserialize_i32();
        deserialize_i64(); deserialize_i128(); deserialize_u8(); deserialize_u16(); deserialize_u32();
        deserialize_u64(); deserialize_u128(); deserialize_f32(); deserialize_f64(); deserialize_char();
        deserialize_str(); deserialize_string(); deserialize_bytes(); deserialize_byte_buf(); deserialize_option();
        deserialize_unit(); deserialize_unit_struct(name: &'static str);
        deserialize_newtype_struct(name: &'static str); deserialize_seq(); deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize); deserialize_map();
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier(); deserialize_ignored_any();
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.0.deserialize_struct(name, fields, OfStruct(visitor, fields))
    }

    fn is_human_readable(&self) -> bool {
        self.0.is_human_readable()
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for OfStruct<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<V::Value, A::Error> {
        let value = self.0.visit_seq(Forgiving(&mut items))?;
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(value)
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Known(entries, self.1))
    }
}

macro_rules! visit {
    ($($method:ident($type:ty);)*) => {
        $(fn $method<E: Error>(self, value: $type) -> Result<V::Value, E> {
            self.0.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Forgiving<V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visit! {
        visit_bool(bool); visit_i8(i8); visit_i16(i16); visit_i32(i32); visit_i64(i64); visit_i128(i128); visit_u8(u8);
        visit_u16(u16); visit_u32(u32); visit_u64(u64); visit_u128(u128); visit_f32(f32); visit_f64(f64);
        visit_char(char); visit_str(&str); visit_borrowed_str(&'de str); visit_string(String); visit_bytes(&[u8]);
        visit_borrowed_bytes(&'de [u8]); visit_byte_buf(Vec<u8>);
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Forgiving(inner))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Forgiving(inner))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, items: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Forgiving(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Forgiving(entries))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, variant: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Forgiving(variant))
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Forgiving<S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        self.0.deserialize(Forgiving(inner))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Forgiving<A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_element_seed(Forgiving(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Forgiving<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        self.0.next_key_seed(Forgiving(seed))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Forgiving(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Known<A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, A::Error> {
        while let Some(key) = self.0.next_key::<String>()? {
            if self.1.contains(&key.as_str()) {
                return seed.deserialize(serde::de::value::StringDeserializer::new(key)).map(Some);
            }
            self.0.next_value::<IgnoredAny>()?;
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.0.next_value_seed(Forgiving(seed))
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Forgiving<A> {
    type Error = A::Error;
    type Variant = Forgiving<A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self::Variant), A::Error> {
        self.0.variant_seed(seed).map(|(variant, content)| (variant, Forgiving(content)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Forgiving<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.0.newtype_variant_seed(Forgiving(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Forgiving(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, OfStruct(visitor, fields))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use serde::{Deserialize, Serialize};
    use serde_bytes::ByteBuf;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Old {
        name: String,
        key: ByteBuf,
        path: (u8, SocketAddr),
        inner: Vec<(u32, OldInner)>,
        kind: Kind,
        last: Option<Box<OldInner>>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct OldInner {
        size: u64,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        With(Box<OldInner>),
        Named { size: u64 },
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct New {
        name: String,
        key: ByteBuf,
        path: (u8, SocketAddr),
        inner: Vec<(u32, NewInner)>,
        kind: NewKind,
        last: Option<Box<NewInner>>,
        #[serde(default)]
        added: Option<String>,
        #[serde(default = "seven")]
        more: u32,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct NewInner {
        size: u64,
        #[serde(default)]
        deep: Vec<(u8, Vec<u8>)>,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum NewKind {
        Plain,
        With(Box<NewInner>),
        Named {
            size: u64,
            #[serde(default)]
            deep: Option<u8>,
        },
        Invented(u8),
    }

    fn seven() -> u32 {
        7
    }

    fn old(kind: Kind) -> Old {
        Old {
            name: "ann".to_owned(),
            key: ByteBuf::from(vec![1, 2]),
            path: (3, "[::1]:5".parse().unwrap()),
            inner: vec![(1, OldInner { size: 10 }), (2, OldInner { size: 20 })],
            kind,
            last: Some(Box::new(OldInner { size: 30 })),
        }
    }

    fn new(kind: NewKind) -> New {
        let inner = |size| NewInner { size, deep: vec![(1, vec![2, 3])] };
        New {
            name: "ann".to_owned(),
            key: ByteBuf::from(vec![1, 2]),
            path: (3, "[::1]:5".parse().unwrap()),
            inner: vec![(1, inner(10)), (2, inner(20))],
            kind,
            last: Some(Box::new(inner(30))),
            added: Some("later".to_owned()),
            more: 8,
        }
    }

    fn kinds() -> [(Kind, NewKind); 3] {
        let with = NewKind::With(Box::new(NewInner { size: 1, deep: vec![(9, vec![])] }));
        [
            (Kind::Plain, NewKind::Plain),
            (Kind::With(Box::new(OldInner { size: 1 })), with),
            (Kind::Named { size: 2 }, NewKind::Named { size: 2, deep: Some(1) }),
        ]
    }

    #[test]
    fn what_a_later_release_has_more_is_skipped_at_any_depth() {
        for (known, later) in kinds() {
            let later = new(later);
            for packed in [rmp_serde::to_vec(&later).unwrap(), rmp_serde::to_vec_named(&later).unwrap()] {
                assert!(rmp_serde::from_slice::<Old>(&packed).is_err(), "else this file is needed no more");
                assert_eq!(from_slice::<Old>(&packed).unwrap(), old(later_less(&known)));
            }
        }
    }

    fn later_less(kind: &Kind) -> Kind {
        match kind {
            Kind::Plain => Kind::Plain,
            Kind::With(inner) => Kind::With(Box::new(OldInner { size: inner.size })),
            Kind::Named { size } => Kind::Named { size: *size },
        }
    }

    #[test]
    fn what_an_earlier_release_lacks_takes_its_default_at_any_depth() {
        for (known, _) in kinds() {
            let earlier = old(known);
            for packed in [rmp_serde::to_vec(&earlier).unwrap(), rmp_serde::to_vec_named(&earlier).unwrap()] {
                let read: New = from_slice(&packed).unwrap();
                assert_eq!((&read.added, read.more, read.inner.len()), (&None, 7, 2));
                assert!(read.inner.iter().all(|(_, inner)| inner.deep.is_empty()));
                assert_eq!(from_slice::<Old>(&rmp_serde::to_vec(&read).unwrap()).unwrap(), earlier);
            }
        }
    }

    #[test]
    fn what_has_no_default_or_is_of_an_unknown_kind_is_refused() {
        let packed = rmp_serde::to_vec(&new(NewKind::Invented(1))).unwrap();
        assert!(from_slice::<Old>(&packed).is_err());
        assert!(from_slice::<Old>(&rmp_serde::to_vec(&("ann", ByteBuf::new())).unwrap()).is_err());
        assert!(from_slice::<Old>(b"").is_err());
        let packed = rmp_serde::to_vec(&old(Kind::Plain)).unwrap();
        for len in 0..packed.len() {
            assert!(from_slice::<Old>(&packed[..len]).is_err());
        }
    }
}
