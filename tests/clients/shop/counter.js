exports.main = args => ({ letters: args.text.length })
