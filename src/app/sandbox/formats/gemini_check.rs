//! What Google refuses in a request. Both spellings of a field's name are taken, as Google takes them.

use serde_json::Value;

use super::check::{Checked, Spot, wrong};
use super::is_forged;
use crate::app::sandbox::ask::Ask;

const FIELDS: [&str; 11] = [
    "contents",
    "systemInstruction",
    "tools",
    "toolConfig",
    "generationConfig",
    "safetySettings",
    "cachedContent",
    "labels",
    "serviceTier",
    "store",
    "modelArmorConfig",
];

const CONFIG: [&str; 21] = [
    "temperature",
    "topP",
    "topK",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "seed",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseSchema",
    "responseJsonSchema",
    "responseModalities",
    "responseLogprobs",
    "logprobs",
    "thinkingConfig",
    "speechConfig",
    "mediaResolution",
    "imageConfig",
    "routingConfig",
    "enableEnhancedCivicAnswers",
];

const PART: [&str; 12] = [
    "text",
    "thought",
    "thoughtSignature",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
    "videoMetadata",
    "mediaResolution",
    "partMetadata",
];

/// The subset of OpenAPI that `parameters` and `responseSchema` may use.
const SCHEMA: [&str; 22] = [
    "type",
    "format",
    "title",
    "description",
    "nullable",
    "enum",
    "maxItems",
    "minItems",
    "properties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "example",
    "anyOf",
    "propertyOrdering",
    "default",
    "items",
    "minimum",
    "maximum",
];

/// Reads a body, and checks it.
pub fn read(body: &Value, vertex: bool, ask: &mut Ask) -> Checked {
    let top = Spot::top(body);
    known(&top, &FIELDS)?;
    if let Some(system) = field(&top, "systemInstruction") {
        known(&system, &["parts", "role"])?;
        for part in system.need("parts")?.filled()? {
            ask.counts(part.need("text")?.text()?);
        }
    }
    config(&top, ask)?;
    tools(&top, ask)?;
    contents(&top.need("contents")?, vertex, ask)
}

/// A field by its name, in either spelling.
fn field<'a>(spot: &Spot<'a>, name: &str) -> Option<Spot<'a>> {
    spot.either(&[name, &snake(name)])
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for letter in name.chars() {
        if letter.is_ascii_uppercase() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn known(spot: &Spot<'_>, names: &[&str]) -> Checked {
    let Some(object) = spot.value.as_object() else {
        return spot.wrong("Invalid value. An object is expected.");
    };
    let fits = |key: &String| names.iter().any(|name| name == key || snake(name) == *key);
    match object.keys().find(|key| !fits(key)) {
        Some(key) => spot.wrong(format_args!(
            "Invalid JSON payload received. Unknown name \"{key}\": Cannot find field."
        )),
        None => Ok(()),
    }
}

fn config(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    let Some(config) = field(top, "generationConfig") else { return Ok(()) };
    known(&config, &CONFIG)?;
    let ranges = [("temperature", 0.0, 2.0), ("topP", 0.0, 1.0), ("presencePenalty", -2.0, 2.0)];
    for (name, low, high) in ranges {
        if let Some(spot) = field(&config, name) {
            spot.number(low, high)?;
        }
    }
    if let Some(most) = field(&config, "maxOutputTokens") {
        most.whole(1)?;
    }
    if let Some(stops) = field(&config, "stopSequences")
        && stops.list()?.len() > 5
    {
        return stops.wrong("at most 5 stop sequences");
    }
    if let Some(count) = field(&config, "candidateCount") {
        ask.n = count.whole(1)?.min(8) as u32;
    }
    let schema = field(&config, "responseSchema");
    let json = field(&config, "responseJsonSchema");
    if schema.is_some() && json.is_some() {
        return config.wrong("only one of response_schema and response_json_schema can be set");
    }
    let mime = field(&config, "responseMimeType");
    if (schema.is_some() || json.is_some())
        && mime.is_none_or(|mime| mime.value != "application/json")
    {
        return config.wrong("a schema needs the response mime type application/json");
    }
    if let Some(schema) = schema {
        subset(&schema)?;
    }
    if field(&config, "logprobs").is_some()
        && field(&config, "responseLogprobs").is_none_or(|spot| spot.value != true)
    {
        return config.wrong("logprobs needs response_logprobs");
    }
    let Some(thinking) = field(&config, "thinkingConfig") else { return Ok(()) };
    known(&thinking, &["thinkingBudget", "thinkingLevel", "includeThoughts"])?;
    if field(&thinking, "thinkingBudget").is_some() && field(&thinking, "thinkingLevel").is_some() {
        return thinking.wrong("You can only set one of thinking budget and thinking level.");
    }
    Ok(())
}

fn subset(schema: &Spot<'_>) -> Checked {
    known(schema, &SCHEMA)?;
    if let Some(properties) = schema.get("properties") {
        properties.object()?;
        let names = properties.value.as_object().into_iter().flat_map(|object| object.keys());
        for property in names.filter_map(|name| properties.get(name)) {
            subset(&property)?;
        }
    }
    if let Some(items) = schema.get("items") {
        subset(&items)?;
    }
    for choice in field(schema, "anyOf").map_or(Ok(Vec::new()), |all| all.list())? {
        subset(&choice)?;
    }
    Ok(())
}

fn tools(top: &Spot<'_>, ask: &mut Ask) -> Checked {
    for tool in field(top, "tools").map_or(Ok(Vec::new()), |tools| tools.list())? {
        let Some(functions) = field(&tool, "functionDeclarations") else { continue };
        for function in functions.filled()? {
            let names = [
                "name",
                "description",
                "parameters",
                "parametersJsonSchema",
                "response",
                "responseJsonSchema",
                "behavior",
            ];
            known(&function, &names)?;
            ask.tools.push(function.need("name")?.name(64, ".:")?.to_owned());
            let json = field(&function, "parametersJsonSchema");
            if let Some(parameters) = function.get("parameters") {
                if json.is_some() {
                    return function.wrong("only one of parameters and parameters_json_schema");
                }
                let properties = parameters.value["properties"].as_object();
                if parameters.value["type"] == "object" && properties.is_none_or(|p| p.is_empty()) {
                    return parameters.wrong("properties: should be non-empty for OBJECT type");
                }
                subset(&parameters)?;
            }
        }
    }
    let Some(calling) = field(top, "toolConfig").and_then(|c| field(&c, "functionCallingConfig"))
    else {
        return Ok(());
    };
    known(&calling, &["mode", "allowedFunctionNames", "streamFunctionCallArguments"])?;
    let mode = match calling.get("mode") {
        Some(mode) => mode.one_of(&["AUTO", "ANY", "NONE", "VALIDATED", "MODE_UNSPECIFIED"])?,
        None => "AUTO",
    };
    let Some(allowed) = field(&calling, "allowedFunctionNames") else { return Ok(()) };
    if !matches!(mode, "ANY" | "VALIDATED") {
        return allowed.wrong("allowed_function_names goes with the modes ANY and VALIDATED");
    }
    for name in allowed.filled()? {
        if !ask.tools.iter().any(|tool| tool == name.value) {
            return name.wrong("no such function was declared");
        }
    }
    Ok(())
}

fn contents(contents: &Spot<'_>, vertex: bool, ask: &mut Ask) -> Checked {
    // The names that were called in the turn before.
    let mut open: Vec<&str> = Vec::new();
    for (i, content) in contents.filled()?.into_iter().enumerate() {
        known(&content, &["role", "parts"])?;
        let role = match content.get("role") {
            Some(role) => match role.text()? {
                role @ ("user" | "model") => role,
                // A result may have a role of its own.
                "function" => "user",
                _ => return role.wrong("Please use a valid role: user, model."),
            },
            None if vertex => return content.wrong("Please use a valid role: user, model."),
            None => "user",
        };
        let (mut called, mut returned) = (Vec::new(), Vec::new());
        for part in content.need("parts")?.filled()? {
            one_part(&part, &mut called, &mut returned, ask)?;
        }
        if !called.is_empty() && (role != "model" || i == 0) {
            return content.wrong(
                "Please ensure that function call turn comes immediately after a user turn or after a function response turn.",
            );
        }
        if returned.len() != open.len() {
            return content.wrong(
                "Please ensure that the number of function response parts is equal to the number of function call parts of the function call turn.",
            );
        }
        if let Some(name) = returned.iter().find(|name| !open.contains(name)) {
            return content.wrong(format_args!("a response of `{name}`, which was not called"));
        }
        open = called;
    }
    if open.is_empty() { Ok(()) } else { wrong("contents: a function call has no response") }
}

fn one_part<'a>(
    part: &Spot<'a>,
    called: &mut Vec<&'a str>,
    returned: &mut Vec<&'a str>,
    ask: &mut Ask,
) -> Checked {
    known(part, &PART)?;
    let data = ["text", "inlineData", "fileData", "functionCall", "functionResponse"];
    let others = ["executableCode", "codeExecutionResult"];
    let held = data.iter().chain(&others).filter(|name| field(part, name).is_some()).count();
    let signature = field(part, "thoughtSignature");
    if held != 1 && signature.is_none() {
        return part.wrong("required oneof field 'data' must have one initialized field");
    }
    let thought = part.value["thought"] == true;
    if let Some(text) = part.get("text") {
        let text = text.text()?;
        if !thought {
            ask.counts(text);
        }
        if let (true, Some(signature)) = (thought, &signature)
            && is_forged(signature.text()?, text)
        {
            return part.wrong("Thought signature is not valid");
        }
    }
    if let Some(media) = field(part, "inlineData") {
        known(&media, &["mimeType", "data", "displayName"])?;
        if !field(&media, "mimeType")
            .is_some_and(|m| m.value.as_str().is_some_and(|m| m.contains('/')))
        {
            return media.wrong("mimeType: required");
        }
        media.need("data")?.base64()?;
    }
    if let Some(file) = field(part, "fileData") {
        known(&file, &["mimeType", "fileUri", "displayName"])?;
    }
    if let Some(call) = field(part, "functionCall") {
        known(&call, &["id", "name", "args"])?;
        let args = call.get("args");
        if let Some(args) = &args {
            args.object()?;
        }
        if let (Some(signature), Some(args)) = (&signature, &args)
            && is_forged(signature.text()?, &args.value.to_string())
        {
            return part.wrong("Thought signature is not valid");
        }
        called.push(call.need("name")?.name(64, ".:")?);
    }
    if let Some(response) = field(part, "functionResponse") {
        known(&response, &["id", "name", "response", "willContinue", "scheduling", "parts"])?;
        response.need("response")?.object()?;
        returned.push(response.need("name")?.name(64, ".:")?);
    }
    Ok(())
}
