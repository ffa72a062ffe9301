//! Lines that begin with a slash.

/// What a line asks the command, and not the model, to do.
#[derive(Debug, PartialEq)]
pub enum Instruction<'a> {
    Reset,
    System(&'a str),
    Save(&'a str),
    Load(&'a str),
    Stats,
    Help,
    Quit,
}

pub const HELP: &str = "\
/reset         forget the conversation, but not the system's text
/system TEXT   forget the conversation, and have this as the system's text; without TEXT, none
/save FILE     write the conversation to a file (JSON)
/load FILE     continue the conversation in a file
/stats         what the last answer took, and what the context holds
/help          this list
/quit          end
A line that ends with a backslash goes on in the next one. A message that begins with a slash has two.
";

impl<'a> Instruction<'a> {
    /// The instruction of a line; nothing if it is a message.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn parse(line: &'a str) -> Result<Option<Self>, String> {
        let Some(rest) = line.strip_prefix('/').filter(|rest| !rest.starts_with('/')) else {
            return Ok(None);
        };
        let (name, argument) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        let argument = argument.trim();
        let file = || match argument {
            "" => Err(format!("/{name}: the name of a file is missing")),
            file => Ok(file),
        };
        let alone = |instruction| match argument {
            "" => Ok(instruction),
            _ => Err(format!("/{name} takes nothing behind it")),
        };
        Ok(Some(match name {
            "reset" => alone(Self::Reset)?,
            "system" => Self::System(argument),
            "save" => Self::Save(file()?),
            // The messages come from there.
            "load" if argument == "-" => {
                return Err("/load: standard input is where messages come from".into());
            }
            "load" => Self::Load(file()?),
            "stats" => alone(Self::Stats)?,
            "help" => alone(Self::Help)?,
            "quit" | "exit" => alone(Self::Quit)?,
            _ => return Err(format!("there is no instruction '/{name}'; /help lists them")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Instruction;

    #[test]
    fn lines_with_a_slash_are_instructions() {
        assert_eq!(Instruction::parse("/save a b.json "), Ok(Some(Instruction::Save("a b.json"))));
        assert_eq!(Instruction::parse("/system"), Ok(Some(Instruction::System(""))));
        assert_eq!(Instruction::parse("/system Be brief."), Ok(Some(Instruction::System("Be brief."))));
        assert_eq!(Instruction::parse("/quit"), Ok(Some(Instruction::Quit)));
        for message in ["", "Hello /quit", " /quit", "//quit"] {
            assert_eq!(Instruction::parse(message), Ok(None), "{message}");
        }
        for wrong in ["/", "/sing", "/save", "/load  ", "/load -", "/reset now"] {
            Instruction::parse(wrong).unwrap_err();
        }
    }
}
