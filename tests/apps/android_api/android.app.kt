package android.app

abstract class Application : android.content.Context()
