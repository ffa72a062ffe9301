// Writes a text with the default parameters: app MODEL PROMPT.
import Esolm

let model = try Model(path: CommandLine.arguments[1])
let context = try Context(model)
try context.generate([Prompt(try model.tokenize(CommandLine.arguments[2]))])
print(try context.text())
