"""What a learned reader contributes to the planner: which tools a message asks for, and which words say what.

Chosen: a small encoder that was trained to read a message with one tool at a time, and whose scores only point at words;
what those words are worth stays with the planner's rules, so that nothing can be invented. Where it finds no request, the
rules still do, and where the rules would act on what it takes for mere talk, the person is asked first.
"""
