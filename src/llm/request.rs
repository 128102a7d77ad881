//! What a request asks for, read without building a tree.

/// Which API surface a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surface {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// Another `/v1/*` path, passed through.
    Other,
    /// `/v1/models`
    Models,
    /// `/v1/route/explain`
    Explain,
    /// No surface: wrong path or method, or a head that could not be read.
    None,
}

impl Surface {
    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            Surface::Chat => "chat",
            Surface::Completions => "completions",
            Surface::Embeddings => "embeddings",
            Surface::Other => "other",
            Surface::Models => "models",
            Surface::Explain => "explain",
            Surface::None => "none",
        }
    }
}
