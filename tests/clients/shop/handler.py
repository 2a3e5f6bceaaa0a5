def main(args):
    return {"text": args.get("greeting", "?") + ", " + args.get("name", "you")}
