//! Every reason for which a head is refused, with its answer.

macro_rules! refusals {
    ($($(#[$doc:meta])* $variant:ident = $status:literal, $text:literal;)*) => {
        /// Why a head is not accepted. The connection can't be used any further.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Refusal { $($(#[$doc])* $variant,)* }

        impl Refusal {
            /// Every refusal.
            pub const ALL: &'static [Refusal] = &[$(Refusal::$variant,)*];

            /// The status that a client gets for it: 400, 414, 417, 431, 501 or 505. For a
            /// response head the number means nothing: that is a malformed response.
            pub const fn status(self) -> u16 {
                match self { $(Refusal::$variant => $status,)* }
            }

            /// One sentence for a person, without a full stop.
            pub const fn text(self) -> &'static str {
                match self { $(Refusal::$variant => $text,)* }
            }
        }
    };
}

refusals! {
    /// The head has no end within the allowed bytes.
    TooLarge = 431, "the head is too large";
    /// Not even the first line ends within the allowed bytes.
    LineTooLong = 414, "the request target is too long";
    /// More than `limits::HEAD_FIELDS_MAX` fields.
    TooManyFields = 431, "the head has too many fields";
    /// A line feed without its carriage return.
    BareLf = 400, "a line ends without a carriage return";
    /// A carriage return that does not end a line.
    BareCr = 400, "a carriage return is not followed by a line feed";
    /// An octet below 0x20 that is not a tab, or 0x7f.
    Control = 400, "the head holds a control octet";
    /// More than `limits::EMPTY_LINES_MAX` empty lines before the request, or any before a response.
    EmptyLines = 400, "empty lines come before the start line";
    /// The start line is not `method SP target SP version`, or `version SP status ...`.
    StartLine = 400, "the start line is malformed";
    /// Another major version than 1 (this includes HTTP/0.9, which has no version).
    Version = 505, "the HTTP version is not supported";
    /// `CONNECT` or `TRACE`: not implemented.
    Method = 501, "the method is not supported";
    /// The target is an authority, a URI that is not HTTP's, or `*` without `OPTIONS`.
    TargetForm = 400, "the request target must be a path or an http URI";
    /// An absolute target without a host, or with more than host and port.
    TargetAuthority = 400, "the authority of the request target is malformed";
    /// The target holds an octet that RFC 3986 does not allow there.
    TargetOctet = 400, "the request target holds an octet that is not allowed";
    /// A field line that begins with white space (RFC 9112, 5.2).
    Folded = 400, "a field line is folded";
    /// White space between a field's name and its colon (RFC 9112, 5.1).
    SpaceBeforeColon = 400, "white space comes before a colon";
    /// A field without a name or a colon, or a name that is not a token.
    FieldName = 400, "a field name is malformed";
    /// HTTP/1.1 without `Host`.
    HostMissing = 400, "the Host field is missing";
    /// Two `Host` fields.
    HostRepeated = 400, "the Host field is repeated";
    /// Not a host with an optional port.
    HostMalformed = 400, "the Host field is malformed";
    /// Two `Content-Length` fields, even equal ones, or a list in one.
    LengthRepeated = 400, "the Content-Length field is repeated";
    /// Not a plain decimal number below 2^63.
    LengthMalformed = 400, "the Content-Length field is malformed";
    /// `Content-Length` beside `Transfer-Encoding`.
    LengthAndCoding = 400, "both Content-Length and Transfer-Encoding are present";
    /// Two `Transfer-Encoding` fields.
    CodingRepeated = 400, "the Transfer-Encoding field is repeated";
    /// Transfer codings of which the last is not `chunked`, or which are no list of codings.
    CodingMalformed = 400, "the Transfer-Encoding field does not end with chunked";
    /// A transfer coding besides `chunked`.
    CodingUnknown = 501, "the transfer coding is not supported";
    /// `Transfer-Encoding` in HTTP/1.0.
    CodingInOldVersion = 400, "HTTP/1.0 has no Transfer-Encoding";
    /// An expectation other than `100-continue`.
    Expectation = 417, "the expectation is not supported";
    /// A status that is not three digits from 100 up.
    Status = 400, "the status code is malformed";
    /// 101: the other side speaks another protocol now, which nobody asked for.
    Switched = 400, "the server switched to another protocol";
}
