//! Parses a selector, like the lexer and parser of Go's `labels.Parse`.

use std::str::FromStr;

use super::{Operator, Requirement, Selector, SelectorError, validate};

/// A token of the text. `in` and `notin` are words; only their position makes them operators.
#[derive(Clone, Copy, PartialEq, Eq)]
enum SelectorToken<'a> {
    End,
    Symbol(&'a str),
    Word(&'a str),
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let mut parser = SelectorParser { rest: text };
        let mut requirements = Vec::new();
        loop {
            match parser.peek() {
                SelectorToken::End => break,
                SelectorToken::Word(_) | SelectorToken::Symbol("!") => {}
                found @ SelectorToken::Symbol(_) => {
                    return Err(unexpected(found, "!, identifier, or 'end of string'"));
                }
            }
            let requirement = parser.requirement();
            requirements.push(requirement.map_err(|cause| SelectorError::Requirement(Box::new(cause)))?);
            match parser.next() {
                SelectorToken::End => break,
                SelectorToken::Symbol(",") => match parser.peek() {
                    SelectorToken::Word(_) | SelectorToken::Symbol("!") => {}
                    found => return Err(unexpected(found, "identifier after ','")),
                },
                found => return Err(unexpected(found, "',' or 'end of string'")),
            }
        }
        requirements.sort_by(|one: &Requirement, two| one.key.cmp(&two.key));
        Ok(Self { requirements })
    }
}

struct SelectorParser<'a> {
    rest: &'a str,
}

impl<'a> SelectorParser<'a> {
    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == SelectorToken::Symbol("!");
        if negated {
            self.next();
        }
        let key = match self.next() {
            SelectorToken::Word(key) => key,
            found => return Err(unexpected(found, "identifier")),
        };
        validate::key(key)?;
        // Go reads `!key=value` as `!key` and then rejects the rest.
        let (operator, values) = if negated {
            (Operator::DoesNotExist, Vec::new())
        } else if matches!(self.peek(), SelectorToken::End | SelectorToken::Symbol(",")) {
            (Operator::Exists, Vec::new())
        } else {
            let operator = self.operator()?;
            let mut values = match operator {
                Operator::In | Operator::NotIn => self.list()?,
                _ => vec![self.value()?],
            };
            values.sort_unstable();
            values.dedup();
            (operator, values)
        };
        validate::values(key, operator, &values)?;
        let values = values.into_iter().map(str::to_owned).collect();
        Ok(Requirement { key: key.to_owned(), operator, values })
    }

    fn operator(&mut self) -> Result<Operator, SelectorError> {
        Ok(match self.next() {
            SelectorToken::Word("in") => Operator::In,
            SelectorToken::Word("notin") => Operator::NotIn,
            SelectorToken::Symbol("=") => Operator::Equals,
            SelectorToken::Symbol("==") => Operator::DoubleEquals,
            SelectorToken::Symbol("!=") => Operator::NotEquals,
            SelectorToken::Symbol(">") => Operator::GreaterThan,
            SelectorToken::Symbol("<") => Operator::LessThan,
            found => return Err(unexpected(found, "in, notin, =, ==, !=, gt, lt")),
        })
    }

    /// Reads a single value; empty if it is missing.
    fn value(&mut self) -> Result<&'a str, SelectorError> {
        if matches!(self.peek(), SelectorToken::End | SelectorToken::Symbol(",")) {
            return Ok("");
        }
        match self.next() {
            SelectorToken::Word(value) => Ok(value),
            found => Err(unexpected(found, "identifier")),
        }
    }

    /// Reads values in parentheses. A missing value is empty.
    fn list(&mut self) -> Result<Vec<&'a str>, SelectorError> {
        match self.next() {
            SelectorToken::Symbol("(") => {}
            found => return Err(SelectorError::NoList { found: found.text().to_owned() }),
        }
        match self.peek() {
            SelectorToken::Word(_) | SelectorToken::Symbol(",") => {}
            SelectorToken::Symbol(")") => {
                self.next();
                return Ok(vec![""]);
            }
            found => return Err(unexpected(found, "',', ')' or identifier")),
        }
        let mut values = Vec::new();
        loop {
            match (self.next(), self.peek()) {
                (SelectorToken::Word(value), SelectorToken::Symbol(",")) => values.push(value),
                (SelectorToken::Word(value), SelectorToken::Symbol(")")) => {
                    values.push(value);
                    break;
                }
                (SelectorToken::Word(_), found) => return Err(unexpected(found, "',' or ')'")),
                (SelectorToken::Symbol(","), next) => {
                    if values.is_empty() {
                        values.push("");
                    }
                    // Go reads a second comma together with the first. So `(a,,)` is an error, but `(a,,b)` is valid.
                    match next {
                        SelectorToken::Symbol(")") => {
                            values.push("");
                            break;
                        }
                        SelectorToken::Symbol(",") => {
                            values.push("");
                            self.next();
                        }
                        _ => {}
                    }
                }
                (found, _) => return Err(unexpected(found, "',', or identifier")),
            }
        }
        self.next();
        Ok(values)
    }

    fn peek(&self) -> SelectorToken<'a> {
        SelectorParser { rest: self.rest }.next()
    }

    /// Reads one token. As in Go, a NUL ends the text. But a NUL directly after a token ends only this token.
    fn next(&mut self) -> SelectorToken<'a> {
        let text = self.rest.trim_start_matches(is_space);
        let (token, length) = match text.bytes().next() {
            None | Some(0) => return SelectorToken::End,
            Some(b'=' | b'!') if text[1..].starts_with('=') => (SelectorToken::Symbol(&text[..2]), 2),
            Some(byte) if is_symbol(char::from(byte)) => (SelectorToken::Symbol(&text[..1]), 1),
            Some(_) => {
                let end = text.find(|c| is_space(c) || is_symbol(c) || c == '\0').unwrap_or(text.len());
                (SelectorToken::Word(&text[..end]), end)
            }
        };
        let rest = &text[length..];
        self.rest = rest.strip_prefix('\0').unwrap_or(rest);
        token
    }
}

impl<'a> SelectorToken<'a> {
    fn text(self) -> &'a str {
        match self {
            SelectorToken::End => "",
            SelectorToken::Symbol(text) | SelectorToken::Word(text) => text,
        }
    }
}

fn unexpected(found: SelectorToken<'_>, expected: &'static str) -> SelectorError {
    SelectorError::Unexpected { found: found.text().to_owned(), expected }
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

fn is_symbol(c: char) -> bool {
    matches!(c, '=' | '!' | '(' | ')' | ',' | '>' | '<')
}
