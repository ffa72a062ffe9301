//! Metadata values.

/// A metadata value. An array's elements are all of one variant, and arrays do not nest.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the variants are the format's own types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(Vec<Value>),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The value's type number in a file.
    pub(super) fn code(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Str(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// The value as an unsigned integer, if it is an integer that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Value::U8(v) => Some(v.into()),
            Value::U16(v) => Some(v.into()),
            Value::U32(v) => Some(v.into()),
            Value::U64(v) => Some(v),
            Value::I8(v) => v.try_into().ok(),
            Value::I16(v) => v.try_into().ok(),
            Value::I32(v) => v.try_into().ok(),
            Value::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// The value as a floating-point number, if it is one.
    pub fn as_f64(&self) -> Option<f64> {
        match *self {
            Value::F32(v) => Some(v.into()),
            Value::F64(v) => Some(v),
            _ => None,
        }
    }

    /// The text, if the value is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(v) => Some(v),
            _ => None,
        }
    }
}

impl Value {
    /// The complete value as text: text unchanged, numbers in decimal, an array in brackets with its strings quoted as
    /// in JSON.
    pub fn to_text(&self) -> String {
        match self {
            Value::Str(text) => text.clone(),
            Value::Array(values) => {
                let quoted = |value: &Value| value.as_str().map_or_else(|| value.to_text(), quote);
                format!("[{}]", values.iter().map(quoted).collect::<Vec<_>>().join(", "))
            }
            number => number.to_string(),
        }
    }
}

/// `text` as a JSON string.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\0'..='\x1f' => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

impl std::fmt::Display for Value {
    /// Numbers and text of up to 80 bytes in full; longer text and arrays by their size.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::U8(v) => v.fmt(f),
            Value::I8(v) => v.fmt(f),
            Value::U16(v) => v.fmt(f),
            Value::I16(v) => v.fmt(f),
            Value::U32(v) => v.fmt(f),
            Value::I32(v) => v.fmt(f),
            Value::F32(v) => v.fmt(f),
            Value::Bool(v) => v.fmt(f),
            Value::U64(v) => v.fmt(f),
            Value::I64(v) => v.fmt(f),
            Value::F64(v) => v.fmt(f),
            Value::Str(v) if v.len() <= 80 => f.write_str(v),
            Value::Str(v) => write!(f, "({} bytes of text)", v.len()),
            Value::Array(v) => write!(f, "({} values)", v.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_convert_to_text() {
        let long = "x".repeat(100);
        assert_eq!(Value::Str(long.clone()).to_text(), long);
        assert_eq!(Value::I8(-3).to_text(), "-3");
        assert_eq!(Value::Bool(true).to_text(), "true");
        assert_eq!(Value::Array(vec![Value::F32(0.5), Value::F32(2.0)]).to_text(), "[0.5, 2]");
        let texts = ["a", "\"\\", "\n", "\u{e9}"].map(|t| Value::Str(t.into()));
        assert_eq!(Value::Array(texts.into()).to_text(), r#"["a", "\"\\", "\u000a", "é"]"#);
    }
}
