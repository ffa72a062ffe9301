// A program outside of esolm's tree, which generates 16 tokens: app MODEL.
import Esolm

let model = try Model(path: CommandLine.arguments[1])
let context = try Context(model, ContextOptions(length: 16, threads: 1))
var params = GenerateParams()
params.steps = 4
params.alpha0 = 1
try context.generate([Prompt()], params)
print("esolm \(version()) wrote \(try context.tokens().count) tokens")
