//! Usage of containers and nodes. It is read when a page is read.

use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::JsonObjectMetrics;
use crate::api::codec::protobuf::{Fields, MalformedProtobuf};
use crate::api::group::MetricsResource;
use crate::api::memory::{self, Reserve};
use crate::api::meta::{MAX_ENTRIES, ObjectEntries, too_many};
use crate::api::page::body::{BodyFormat, Span, vec_memory};
use crate::api::page::{PageError, list};
use crate::api::quantity::Quantity;
use crate::api::text::{JsonText, json_text};

/// Usage of all objects of a page, one after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    containers: Vec<ContainerUsage>,
    amounts: Vec<ResourceAmount>,
}

#[derive(Clone, Debug)]
pub(super) struct ContainerUsage {
    pub(super) name: Span,
    /// The container's amounts, as indexes into [`Usage`].
    pub(super) amounts: Range<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct ResourceAmount {
    pub(super) resource: Span,
    pub(super) quantity: Quantity,
}

#[derive(Deserialize)]
struct ContainerMetrics<'a> {
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    usage: Option<ObjectEntries<'a>>,
}

impl Usage {
    /// The containers in a range of indexes.
    pub(super) fn containers(&self, range: &Range<u32>) -> &[ContainerUsage] {
        slice(&self.containers, range)
    }

    /// The amounts in a range of indexes.
    pub(super) fn amounts(&self, range: &Range<u32>) -> &[ResourceAmount] {
        slice(&self.amounts, range)
    }

    /// Memory of all usage in bytes.
    pub(super) fn memory(&self) -> usize {
        vec_memory(&self.containers, |_| 0) + vec_memory(&self.amounts, |amount| amount.quantity.heap_bytes())
    }

    /// Reads the usage of an object in JSON: `containers` of a pod, `usage` of a node. Returns the indexes of its containers.
    pub(super) fn add_json(
        &mut self,
        resource: MetricsResource,
        body: &[u8],
        index: usize,
        object: &JsonObjectMetrics<'_>,
        reserve: &mut Reserve<'_>,
    ) -> Result<Range<u32>, PageError> {
        let first = self.containers.len();
        match resource {
            MetricsResource::Nodes => {
                let usage = object.usage.map_or(Ok(None), |raw| serde_json::from_str(raw.get()))?;
                self.add_json_container(body, index, ContainerMetrics { name: None, usage }, reserve)?;
            }
            MetricsResource::Pods => {
                let containers = object.containers.map_or("null", RawValue::get);
                list::json_array(containers, |container| {
                    if self.containers.len() - first == MAX_ENTRIES {
                        return Err(PageError::Json(too_many()));
                    }
                    self.add_json_container(body, index, container, reserve)
                })?;
            }
        }
        range(first, self.containers.len())
    }

    fn add_json_container(
        &mut self,
        body: &[u8],
        index: usize,
        container: ContainerMetrics<'_>,
        reserve: &mut Reserve<'_>,
    ) -> Result<(), PageError> {
        let (first, name) = (self.amounts.len(), json_text(container.name)?);
        for (resource, amount) in container.usage.unwrap_or_default().iter() {
            let resource = Span::of_text(body, json_text(Some(resource))?);
            let quantity = list::json_quantity(index, Some(amount), reserve)?;
            memory::push(&mut self.amounts, ResourceAmount { resource, quantity }, reserve)?;
        }
        self.end_container(BodyFormat::Json, body, name, first, reserve)
    }

    /// Reads the usage of an object in protobuf. Returns the indexes of its containers.
    pub(super) fn add_protobuf(
        &mut self,
        resource: MetricsResource,
        body: &[u8],
        index: usize,
        message: &[u8],
        reserve: &mut Reserve<'_>,
    ) -> Result<Range<u32>, PageError> {
        let first = self.containers.len();
        match resource {
            MetricsResource::Nodes => self.add_protobuf_container(body, index, "", (4, message), reserve)?,
            MetricsResource::Pods => {
                for field in Fields::of(message) {
                    let (4, container) = field? else { continue };
                    if self.containers.len() - first == MAX_ENTRIES {
                        return Err(MalformedProtobuf::TooManyEntries.into());
                    }
                    let mut name = "";
                    for field in Fields::of(container.bytes()) {
                        if let (1, text) = field? {
                            name = text.text()?;
                        }
                    }
                    self.add_protobuf_container(body, index, name, (2, container.bytes()), reserve)?;
                }
            }
        }
        range(first, self.containers.len())
    }

    /// Adds a container. `map` is the number of the field with its amounts, `message` is the message that contains the field.
    fn add_protobuf_container(
        &mut self,
        body: &[u8],
        index: usize,
        name: &str,
        (map, message): (u64, &[u8]),
        reserve: &mut Reserve<'_>,
    ) -> Result<(), PageError> {
        let first = self.amounts.len();
        for field in Fields::of(message) {
            let (number, entry) = field?;
            if number != map {
                continue;
            }
            if self.amounts.len() - first == MAX_ENTRIES {
                return Err(MalformedProtobuf::TooManyEntries.into());
            }
            let (mut resource, mut quantity) = ("", Quantity::default());
            for field in Fields::of(entry.bytes()) {
                match field? {
                    (1, text) => resource = text.text()?,
                    (2, value) => quantity = list::protobuf_quantity(index, value.bytes(), reserve)?,
                    _ => {}
                }
            }
            let resource = Span::of_text(body, JsonText::Plain(resource));
            memory::push(&mut self.amounts, ResourceAmount { resource, quantity }, reserve)?;
        }
        self.end_container(BodyFormat::Protobuf, body, JsonText::Plain(name), first, reserve)
    }

    /// Sorts the amounts from index `first` by resource, and adds the container that has them.
    fn end_container(
        &mut self,
        format: BodyFormat,
        body: &[u8],
        name: JsonText<'_>,
        first: usize,
        reserve: &mut Reserve<'_>,
    ) -> Result<(), PageError> {
        self.amounts[first..].sort_by_key(|amount| format.text(body, amount.resource));
        let amounts = range(first, self.amounts.len())?;
        let container = ContainerUsage { name: Span::of_text(body, name), amounts };
        Ok(memory::push(&mut self.containers, container, reserve)?)
    }
}

fn range(start: usize, end: usize) -> Result<Range<u32>, PageError> {
    let index = |index| u32::try_from(index).map_err(|_| PageError::TooLong);
    Ok(index(start)?..index(end)?)
}

fn slice<'a, T>(all: &'a [T], range: &Range<u32>) -> &'a [T] {
    &all[range.start as usize..range.end as usize]
}
