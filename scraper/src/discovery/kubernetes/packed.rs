//! Objects as a store keeps them: one run of bytes each.
//!
//! A pod with its strings and maps apart takes several kilobytes, packed about one; and it is looked at only when it or
//! something it is joined with changes. Fields stand one after the other without names. Names of labels and
//! annotations are not among the bytes, because most pods have the same ones and share the list of them.
//!
//! The bytes never leave the process, so there is no version and no reading of what someone else wrote.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::target_group::{Names, PackedStrings, push_packed};

/// An object at rest. Equal objects are equal here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    text: Box<str>,
    names: Names,
}

/// What can be kept in a [`Packed`].
pub(super) trait Pack: Sized {
    fn pack<'a>(&'a self, out: &mut Packer<'a>);
    fn unpack(from: &mut Unpacker<'_>) -> Self;
}

/// Where objects are written.
#[derive(Default)]
pub(super) struct Packer<'a> {
    text: String,
    names: Vec<&'a str>,
}

/// Where objects are read. What was written comes back in the same order; more would be a bug of ours and comes back
/// empty.
pub(super) struct Unpacker<'a> {
    text: PackedStrings<'a>,
    names: Box<dyn Iterator<Item = &'a str> + 'a>,
}

impl Packed {
    pub(super) fn of<T: Pack>(object: &T) -> Self {
        let mut packer = Packer::default();
        object.pack(&mut packer);
        Self { text: packer.text.into(), names: Names::shared(&packer.names) }
    }

    pub(super) fn unpack<T: Pack>(&self) -> T {
        let text = PackedStrings { rest: &self.text };
        T::unpack(&mut Unpacker { text, names: Box::new(self.names.iter()) })
    }
}

impl Packer<'_> {
    fn put(&mut self, text: &str) {
        push_packed(&mut self.text, text);
    }

    fn put_number(&mut self, number: i64) {
        // Nearly all numbers are counts of a few, which is one digit.
        self.put(&number.to_string());
    }
}

impl<'a> Unpacker<'a> {
    fn take(&mut self) -> &'a str {
        self.text.next().unwrap_or_default()
    }

    fn take_number(&mut self) -> i64 {
        self.take().parse().unwrap_or_default()
    }
}

impl Pack for String {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put(self);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.take().to_owned()
    }
}

impl Pack for i64 {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put_number(*self);
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        from.take_number()
    }
}

impl Pack for bool {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put(if *self { "1" } else { "" });
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        !from.take().is_empty()
    }
}

impl<T: Pack> Pack for Option<T> {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put(if self.is_some() { "1" } else { "" });
        if let Some(value) = self {
            value.pack(out);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (!from.take().is_empty()).then(|| T::unpack(from))
    }
}

impl<T: Pack> Pack for Vec<T> {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put_number(self.len() as i64);
        self.iter().for_each(|item| item.pack(out));
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        (0..from.take_number()).map(|_| T::unpack(from)).collect()
    }
}

impl Pack for BTreeMap<String, String> {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        out.put_number(self.len() as i64);
        for (name, value) in self {
            out.names.push(name);
            out.put(value);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let pairs = (0..from.take_number()).map(|_| {
            let name = from.names.next().unwrap_or_default();
            (name.to_owned(), from.take().to_owned())
        });
        pairs.collect()
    }
}

/// The fields that are used. Name and namespace are in the key that an object is kept under.
impl Pack for ObjectMeta {
    fn pack<'a>(&'a self, out: &mut Packer<'a>) {
        self.uid.pack(out);
        self.labels.pack(out);
        self.annotations.pack(out);
        let owners = self.owner_references.as_deref().unwrap_or_default();
        out.put_number(owners.len() as i64);
        for owner in owners {
            owner.kind.pack(out);
            owner.name.pack(out);
        }
    }

    fn unpack(from: &mut Unpacker<'_>) -> Self {
        let (uid, labels, annotations) = (Pack::unpack(from), Pack::unpack(from), Pack::unpack(from));
        let owners = (0..from.take_number()).map(|_| OwnerReference {
            controller: Some(true),
            kind: Pack::unpack(from),
            name: Pack::unpack(from),
            ..OwnerReference::default()
        });
        let owners: Vec<_> = owners.collect();
        let owner_references = (!owners.is_empty()).then_some(owners);
        Self { uid, labels, annotations, owner_references, ..Self::default() }
    }
}
