//! Models, targets, routes: the sections that refer to one another by name.

use toml::de::DeValue;

use super::raw::{self, Node, Reader};
use super::settings::{self, Level};
use super::text::{self, Wrong};
use super::{FactsPatch, KnownModel, Model, Needs, Patch, Policy, Route, TargetSpec};
use crate::base::ids::{Id, ModelId, ProviderId};

/// The names that may be referred to, in the order of their ids.
pub(super) struct Known {
    providers: Vec<String>,
    models: Vec<String>,
}

impl Known {
    pub(super) fn new(providers: &[(String, Node<'_>)], models: &[(String, Node<'_>)]) -> Known {
        let names =
            |list: &[(String, Node<'_>)]| list.iter().map(|(name, _)| name.clone()).collect();
        Known { providers: names(providers), models: names(models) }
    }

    fn provider(&self, reader: &mut Reader<'_>, node: &Node<'_>, name: &str) -> Option<ProviderId> {
        find(reader, node, "provider", &self.providers, name)
    }

    fn model(&self, reader: &mut Reader<'_>, node: &Node<'_>, name: &str) -> Option<ModelId> {
        find(reader, node, "model", &self.models, name)
    }
}

fn find<I: Id>(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    what: &str,
    names: &[String],
    name: &str,
) -> Option<I> {
    // More names than ids is refused when the config is compiled; here it must only not wrap.
    match names.iter().position(|known| known == name) {
        Some(index) if index <= usize::from(u16::MAX) => return Some(I::from_index(index)),
        Some(_) | None => {}
    }
    let hint = match text::nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("add [{}]", raw::join(&format!("{what}s"), name)),
    };
    reader.wrong(&node.place, Wrong::new(format!("unknown {what} {name:?}"), hint));
    None
}

const MODEL_HINT: &str = "visible ASCII without ; , \" and \\, at most 256 letters";

pub(super) fn model(
    reader: &mut Reader<'_>,
    known: &Known,
    (name, node): (String, Node<'_>),
) -> Option<Model> {
    let place = node.place.clone();
    if !text::is_model_name(&name) {
        reader.wrong(&place, Wrong::new("not a usable model name", MODEL_HINT));
    }
    let mut section = reader.section(node, &[raw::MODEL, raw::SETTINGS])?;
    let mut targets: Vec<TargetSpec> = Vec::new();
    let list = section.take("targets");
    if list.as_ref().is_none_or(Node::is_empty_array) {
        let hint = "add targets = [\"provider/upstream-model\"]";
        reader.wrong(&place, Wrong::new("the model has no targets", hint));
    }
    let items = list.and_then(|node| reader.items(&node, TARGET_HINT)).unwrap_or_default();
    for item in items {
        let place = item.place.clone();
        let Some(spec) = target(reader, known, item) else { continue };
        if targets.iter().any(|t| t.provider == spec.provider && t.model == spec.model) {
            reader.wrong(&place, Wrong::new("the same target twice", "remove one of them"));
        }
        targets.push(spec);
    }
    let fallbacks = section.take("fallbacks").map(|node| models(reader, known, &node));
    let mut fallbacks = fallbacks.unwrap_or_default();
    fallbacks.retain(|id: &ModelId| known.models.get(id.index()) != Some(&name));
    let settings = settings::patch(reader, &mut section, Level::Model);
    Some(Model { name, targets, fallbacks, settings })
}

const TARGET_HINT: &str = "write \"provider/upstream-model\"";

fn target(reader: &mut Reader<'_>, known: &Known, node: Node<'_>) -> Option<TargetSpec> {
    let DeValue::Table(_) = node.value else {
        return target_name(reader, known, &node, Patch::default());
    };
    let place = node.place.clone();
    let mut section = reader.section(node, &[raw::TARGET, raw::SETTINGS])?;
    let name = section.take("target");
    let settings = settings::patch(reader, &mut section, Level::Target);
    match name {
        Some(node) => target_name(reader, known, &node, settings),
        None => {
            let hint = "add target = \"provider/upstream-model\"";
            reader.wrong(&place, Wrong::new("target is missing", hint));
            None
        }
    }
}

fn target_name(
    reader: &mut Reader<'_>,
    known: &Known,
    node: &Node<'_>,
    settings: Patch,
) -> Option<TargetSpec> {
    let value = reader.string(node, TARGET_HINT)?;
    let Some((provider, model)) = value.split_once('/') else {
        let what = format!("{value:?} names no provider");
        reader.wrong(&node.place, Wrong::new(what, TARGET_HINT));
        return None;
    };
    let provider = known.provider(reader, node, provider);
    if model == "*" {
        let hint = "any model of a provider can be asked for as provider/model without an entry";
        reader.wrong(&node.place, Wrong::new("a wildcard is no upstream model", hint));
        return None;
    }
    if model.is_empty() || model.len() > 256 || model.chars().any(char::is_control) {
        let hint = "1 to 256 characters, none of them a control character";
        reader.wrong(&node.place, Wrong::new("not a usable upstream model", hint));
        return None;
    }
    Some(TargetSpec { provider: provider?, model: model.to_owned(), settings })
}

/// A list of model names, without repeats.
fn models(reader: &mut Reader<'_>, known: &Known, node: &Node<'_>) -> Vec<ModelId> {
    let hint = "as in [\"gpt-4o\"]";
    let mut list = Vec::new();
    for item in reader.items(node, hint).unwrap_or_default() {
        let Some(name) = reader.string(&item, hint) else { continue };
        let Some(id) = known.model(reader, &item, name) else { continue };
        if !list.contains(&id) {
            list.push(id);
        }
    }
    list
}

/// One entry of `[catalog]`: its name is `provider/upstream-model`.
pub(super) fn known_model(
    reader: &mut Reader<'_>,
    known: &Known,
    (name, node): (String, Node<'_>),
) -> Option<KnownModel> {
    let place = node.place.clone();
    let provider = match name.split_once('/') {
        Some((provider, model)) if !model.is_empty() => known.provider(reader, &node, provider),
        Some(_) | None => {
            let what = format!("{name:?} is no model of a provider");
            reader.wrong(&place, Wrong::new(what, TARGET_HINT));
            None
        }
    };
    let mut section = reader.section(node, &[raw::CATALOG])?;
    let mut tokens = |reader: &mut Reader<'_>, key| {
        section.take(key).and_then(|node| reader.integer(&node, 1, u32::MAX))
    };
    let (context, output) = (tokens(reader, "context"), tokens(reader, "output"));
    let mut price =
        |reader: &mut Reader<'_>, key| section.take(key).and_then(|node| reader.price(&node));
    let patch = FactsPatch {
        context,
        output,
        price_in: price(reader, "price_in"),
        price_out: price(reader, "price_out"),
        price_cached: price(reader, "price_cached"),
        price_cache_write: price(reader, "price_cache_write"),
        can: section.take("can").map(|node| needs(reader, &node)).unwrap_or_default(),
        cannot: section.take("cannot").map(|node| needs(reader, &node)).unwrap_or_default(),
    };
    let both = patch.can.common(patch.cannot);
    if !both.is_empty() {
        let hint = "a model can or it can't: keep one of them";
        reader.wrong(&place, Wrong::new(format!("{both} stands in can and in cannot"), hint));
    }
    let model = name.split_once('/').map(|(_, model)| model.to_owned());
    Some(KnownModel { provider: provider?, model: model?, patch })
}

/// A list of abilities by name.
fn needs(reader: &mut Reader<'_>, node: &Node<'_>) -> Needs {
    let hint = "as in [\"tools\", \"image\"]";
    let items = reader.items(node, hint).unwrap_or_default();
    items.iter().fold(Needs::NONE, |all, item| {
        all.and(reader.choice(item, Needs::NAMES).unwrap_or_default())
    })
}

pub(super) fn route(
    reader: &mut Reader<'_>,
    known: &Known,
    (name, node): (String, Node<'_>),
) -> Option<Route> {
    let place = node.place.clone();
    if !text::is_model_name(&name) {
        reader.wrong(&place, Wrong::new("not a usable route name", MODEL_HINT));
    }
    if known.models.contains(&name) {
        let hint = "clients could not tell them apart: rename one of them";
        reader.wrong(&place, Wrong::new(format!("{name:?} is also a model"), hint));
    }
    let mut section = reader.section(node, &[raw::ROUTE, raw::SETTINGS])?;
    let policy = match section.take("policy") {
        Some(node) => reader.choice(&node, Policy::NAMES),
        None => Some(Policy::Order),
    };
    let list = section.take("models");
    if list.as_ref().is_none_or(Node::is_empty_array) {
        let hint = "add models = [\"gpt-4o\"]";
        reader.wrong(&place, Wrong::new("the route has no models", hint));
    }
    let models = list.map(|node| models(reader, known, &node)).unwrap_or_default();
    let weights = section.take("weights");
    let weights = weights_of(reader, weights.as_ref(), policy, models.len());
    let settings = settings::patch(reader, &mut section, Level::Route);
    Some(Route { name, policy: policy?, models, weights, settings })
}

/// One weight for each model of a weighted route.
fn weights_of(
    reader: &mut Reader<'_>,
    node: Option<&Node<'_>>,
    policy: Option<Policy>,
    models: usize,
) -> Vec<u32> {
    let Some(node) = node else { return vec![1; models] };
    let hint = "as in weights = [3, 1]";
    let items = reader.items(node, hint).unwrap_or_default();
    let list: Vec<u32> =
        items.iter().filter_map(|item| reader.integer(item, 0, 1_000_000)).collect();
    if policy.is_some_and(|policy| policy != Policy::Weighted) {
        let hint = "write policy = \"weighted\", or remove them";
        reader.wrong(&node.place, Wrong::new("weights without that policy", hint));
    } else if items.len() != models {
        let what = format!("{} weights for {models} models", items.len());
        reader.wrong(&node.place, Wrong::new(what, "one weight for each model, in their order"));
    } else if list.len() == models && list.iter().all(|weight| *weight == 0) {
        reader.wrong(&node.place, Wrong::new("no weight is above 0", hint));
    }
    list
}

pub(super) fn passthrough(
    reader: &mut Reader<'_>,
    known: &Known,
    node: Node<'_>,
) -> Option<ProviderId> {
    let place = node.place.clone();
    let mut section = reader.section(node, &[raw::PASSTHROUGH])?;
    let Some(node) = section.take("provider") else {
        let hint = "add provider = \"NAME\", or remove the section";
        reader.wrong(&place, Wrong::new("provider is missing", hint));
        return None;
    };
    let name = reader.string(&node, "")?;
    known.provider(reader, &node, name)
}
