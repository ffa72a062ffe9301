"""Writes small stories from a grammar, for `make train-demo`: python made_up_stories.py COUNT > stories.txt

Each story has a hero, a place, a thing that is lost or wished for, a friend who helps, and an end. What was said of them stays
true to the end, so that a model has something to learn beyond the next word.
"""
import random
import sys

HEROES = [("boy", "he", "his"), ("girl", "she", "her"), ("mouse", "he", "his"), ("cat", "she", "her"), ("fox", "he", "his"),
          ("rabbit", "she", "her"), ("bear", "he", "his"), ("duck", "she", "her"), ("old man", "he", "his"),
          ("old woman", "she", "her")]
NAMES = {"he": ["Tom", "Ben", "Max", "Finn", "Oskar", "Leo", "Jack"],
         "she": ["Mia", "Anna", "Lily", "Rosa", "Ella", "Nora", "Ida"]}
MOODS = ["little", "brave", "quiet", "clever", "merry", "hungry", "kind"]
HOMES = ["in a small house by the river", "at the edge of the forest", "under a big oak tree", "on a green hill",
         "near the sea", "behind the old mill"]
THINGS = [("ball", "red"), ("kite", "yellow"), ("hat", "blue"), ("boat", "white"), ("bell", "golden"), ("basket", "brown"),
          ("key", "silver"), ("drum", "green")]
PLACES = {"the forest": ["the trees were tall and dark", "the birds were singing", "the moss was soft"],
          "the river": ["the water was cold and clear", "the stones were round", "the fish were jumping"],
          "the market": ["people were shouting", "there was a smell of bread", "the carts stood in a row"],
          "the meadow": ["the grass was high", "the bees were humming", "the flowers were open"],
          "the mountain": ["the wind was strong", "the path was steep", "the snow was deep"]}
FRIENDS = ["owl", "frog", "squirrel", "crow", "hedgehog", "goat", "beaver"]
WEATHERS = ["sunny", "rainy", "windy", "cold", "warm", "foggy"]
FEELINGS = {"sad": "began to cry", "angry": "stamped on the ground", "worried": "did not know what to do"}
MEALS = ["bread and honey", "hot soup", "apple cake", "pancakes", "nuts and berries"]
FINDS = {"owl": "with my big eyes", "frog": "at the bottom of the pond", "squirrel": "high up in a tree",
         "crow": "from the air", "hedgehog": "under the dry leaves", "goat": "behind a rock", "beaver": "between the branches"}


def story(r):
    kind, he, his = r.choice(HEROES)
    name, mood, home = r.choice(NAMES[he]), r.choice(MOODS), r.choice(HOMES)
    thing, colour = r.choice(THINGS)
    place, friend, weather, meal = r.choice(list(PLACES)), r.choice(FRIENDS), r.choice(WEATHERS), r.choice(MEALS)
    view, (feeling, act) = r.choice(PLACES[place]), r.choice(list(FEELINGS.items()))
    who = an_article(kind if kind.startswith("old") else f"{mood} {kind}")
    lines = [f"Once upon a time there was {who} named {name}. {name} lived {home}."]
    lines.append(r.choice([
        f"Of all things {he} had, {he} loved {his} {colour} {thing} the most.",
        f"{name} had a {colour} {thing}, and {he} took it everywhere."]))
    lines.append(r.choice([f"One {weather} day {name} went to {place}. There {view}.",
                           f"On a {weather} morning {name} walked to {place}, where {view}."]))
    if r.random() < 0.6:
        lines.append(r.choice([f"When {he} wanted to go home, the {thing} was gone.",
                               f"But on the way {he} lost the {thing}."]))
        lines.append(f"{name} was {feeling} and {act}.")
        lines.append(r.choice([f'Then {an_article(friend)} came by. "What is the matter?" asked the {friend}.',
                               f'A voice said, "Why are you so {feeling}?" It was {an_article(friend)}.']))
        lines.append(r.choice([f'"I have lost my {colour} {thing}," said {name}.', f'"My {thing} is gone," said {name}.']))
        lines.append(f'"I will find it {FINDS[friend]}," said the {friend}.')
        lines.append(r.choice([f"And soon the {friend} came back with the {colour} {thing}.",
                               f"It was not long, and there was the {colour} {thing}."]))
    else:
        lines.append(f"There {he} met {an_article(friend)} who had nothing to play with. The {friend} was {feeling} and {act}.")
        lines.append(f'"You may play with my {colour} {thing}," said {name}.')
        lines.append(f'"Thank you," said the {friend}. "You are very kind." They played until the evening.')
    lines.append(r.choice([f"{name} was happy and thanked the {friend}.",
                           f'"You are a good friend," said {name} to the {friend}.']))
    lines.append(r.choice([f"They went home together and ate {meal}.",
                           f"{name} gave the {friend} {meal}, and they laughed."]))
    lines.append(r.choice([f"From that day on {name} and the {friend} were friends.",
                           f"Since then the {friend} often comes to see {name}.",
                           f"And {name} took good care of the {thing} for ever."]))
    return " ".join(lines)


def an_article(noun):
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


if __name__ == "__main__":
    generator = random.Random(7)
    print("\n<|endoftext|>\n".join(story(generator) for _ in range(int(sys.argv[1]))))
